"""Attention over key intervals by Triton kernels: on CUDA, time and memory follow the pattern's allowed pairs.

A pattern is cut into phases of key intervals (patterns/intervals.py). Phases are computed one after the other: their
results are joined by their log-sum-exp, their gradients added. Positions that lie evenly are computed, not looked up.
`triton_code.py` holds the kernels; it is imported at first use, as Triton may not be installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import BadValue
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Requirements
from fewshot.kernels.operator import make_operator, positions_first, ready
from fewshot.kernels.reference import check_inputs
from fewshot.patterns.intervals import Interval, phases
from fewshot.patterns.pattern import Pattern
from fewshot.patterns.schedule import parse

WIDEST = 256  # columns of a head: wider ones do not fit the tiles below
LEAST = 16  # positions of a tile, and columns: tensor cores multiply no smaller matrices
LOG2E = 1.4426950408889634


@dataclass(frozen=True)
class Tiles:
    """Positions of a tile, and the warps and pipeline stages that a Triton program has."""

    queries: int
    keys: int
    warps: int
    stages: int


# For heads up to so many columns: the tiles of attend_queries, differentiate_queries, differentiate_keys. Not chosen by
# speed, but so that ptxas for an H100 spills little or nothing. "Roomy" needs 200 kB of shared memory (H100, B200).
Trio = tuple[Tiles, Tiles, Tiles]
HALF_ROOMY: dict[int, Trio] = {
    64: (Tiles(128, 128, 4, 3), Tiles(128, 64, 8, 3), Tiles(64, 128, 8, 3)),
    128: (Tiles(128, 64, 8, 3), Tiles(128, 64, 8, 3), Tiles(32, 128, 8, 3)),
    256: (Tiles(64, 32, 4, 2), Tiles(64, 32, 8, 2), Tiles(32, 64, 8, 2)),
}
HALF: dict[int, Trio] = {
    64: (Tiles(128, 64, 4, 3), Tiles(64, 64, 4, 2), Tiles(64, 64, 4, 2)),
    128: (Tiles(64, 64, 4, 2), Tiles(64, 32, 4, 2), Tiles(32, 64, 4, 2)),
    256: (Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),
}
SINGLE: dict[int, Trio] = {
    64: (Tiles(64, 32, 8, 2), Tiles(64, 32, 8, 2), Tiles(32, 64, 8, 2)),
    128: (Tiles(32, 32, 8, 2), Tiles(32, 32, 8, 1), Tiles(32, 32, 8, 1)),
    256: (Tiles(16, 16, 4, 1), Tiles(16, 16, 4, 1), Tiles(16, 16, 8, 1)),
}


def supports(requirements: Requirements) -> str | None:
    """Return why the kernel cannot be used, or None if it can."""
    if requirements.device != "cuda" and not (requirements.device == "cpu" and interpreted()):
        return f"it computes on CUDA, not on {requirements.device}"
    if requirements.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it computes float32, bfloat16 and float16, not {str(requirements.dtype).removeprefix('torch.')}"
    if requirements.width is not None and requirements.width > WIDEST:
        return f"it takes heads of up to {WIDEST} columns, not {requirements.width}"
    if requirements.dropout:
        return "it has no dropout on attention weights"
    if requirements.second_order:
        return "it has no second derivative"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if requirements.device == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0):
        return "it needs an NVIDIA GPU of compute capability 8.0 or more"
    return None


def interpreted() -> bool:
    """Return whether Triton interprets its kernels, on a CPU and slowly: for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    pattern: Pattern,
    *,
    q_start: int = 0,
    documents: Int[Tensor, "B S"] | None = None,
    dropout: Dropout | None = None,
) -> Float[Tensor, "B H T K"]:
    """Return attention as `interface.Attend` defines it. Raises BadValue for heads of more than WIDEST columns."""
    assert not dropout, "supports() refuses dropout"
    check_inputs(q, k, v, q_start, documents)
    if q.shape[3] > WIDEST:
        raise BadValue(f"the triton kernel takes heads of up to {WIDEST} columns, got {q.shape[3]}: use 'sdpa'")
    return _attend(q, k, v, pattern.text, q_start, documents)[0]


# ---- the plan: what the kernels read from tables --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _PhaseTables:
    """The intervals of one phase, with their lists end to end in tensors on the device."""

    intervals: tuple[Interval, ...]
    q_start: int
    device: torch.device
    gather_queries: bool  # whether the positions of some interval do not lie evenly
    gather_keys: bool
    low: Tensor
    high: Tensor
    queries: Tensor
    keys: Tensor

    @classmethod
    def of(cls, intervals: tuple[Interval, ...], q_start: int, device: torch.device) -> _PhaseTables:
        def joined(name: str) -> Tensor:
            lists = [getattr(interval, name) for interval in intervals]
            return torch.as_tensor(np.concatenate(lists).astype(np.int32), device=device)

        def uneven(name: str) -> bool:
            return any(_step(getattr(interval, name)) is None for interval in intervals)

        lists = (joined(name) for name in ("low", "high", "queries", "keys"))
        return cls(intervals, q_start, device, uneven("queries"), uneven("keys"), *lists)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The phases of each kind of head; kind i is that of heads i, i + step, i + 2 step, ..."""

    step: int
    kinds: tuple[tuple[_PhaseTables, ...], ...]
    reads_all_at_first: (
        bool  # whether every query reads in the first phase of its kind: results of others are joined to it
    )
    read_at_first: bool  # whether every key is in the first phase of its kind

    @property
    def joins(self) -> bool:
        """Whether results of several phases are joined: they are then held in float32."""
        return any(len(kind) > 1 for kind in self.kinds)


@lru_cache(maxsize=64)
def _plan(text: str, n_heads: int, n_queries: int, n_keys: int, q_start: int, device: torch.device) -> _Plan:
    (pattern,) = parse(text).patterns
    kinds = [phases(kind, n_queries, n_keys, q_start, n_queries) for kind in pattern.for_heads(n_heads)]
    firsts = [kind[0].intervals for kind in kinds]
    n_reading = [sum(int((interval.high > interval.low).sum()) for interval in intervals) for intervals in firsts]
    n_read = [sum(len(interval.keys) for interval in intervals) for intervals in firsts]
    tables = tuple(tuple(_PhaseTables.of(phase.intervals, q_start, device) for phase in kind) for kind in kinds)
    return _Plan(len(kinds), tables, set(n_reading) == {n_queries}, set(n_read) == {n_keys})


@lru_cache(maxsize=512)
def _query_tiles(phase: _PhaseTables, n_queries: int, n_keys: int) -> Tensor:
    """Return a row of the table for each tile of queries, those with most keys first."""
    rows, flat, k_flat = [], 0, 0
    for interval in phase.intervals:
        first = np.arange(0, len(interval.queries), n_queries)
        last = np.minimum(first + n_queries, len(interval.queries)) - 1
        (q_first, q_step), (k_first, k_step) = _line(interval.queries), _line(interval.keys)
        walk = _walk(interval.low[first], interval.low[last], interval.high[first], interval.high[last], n_keys)
        row = [
            flat + first,
            last + 1 - first,
            q_first - phase.q_start + q_step * first,
            q_step,
            k_flat,
            k_first,
            k_step,
        ]
        rows.append(_rows([*row, *walk, 0], len(first)))
        flat, k_flat = flat + len(interval.queries), k_flat + len(interval.keys)
    return _heaviest_first(rows, phase.device)


@lru_cache(maxsize=512)
def _key_tiles(phase: _PhaseTables, n_queries: int, n_keys: int) -> Tensor:
    """Return a row of the table for each tile of keys, those with most queries first."""
    rows, flat, k_flat = [], 0, 0
    for interval in phase.intervals:
        first = np.arange(0, len(interval.keys), n_keys)
        end = np.minimum(first + n_keys, len(interval.keys))
        (q_first, q_step), (k_first, k_step) = _line(interval.queries), _line(interval.keys)
        low, high = interval.low, interval.high
        any_from, any_to = np.searchsorted(high, first, "right"), np.searchsorted(low, end, "left")
        all_from, all_to = np.searchsorted(high, end, "left"), np.searchsorted(low, first, "right")
        walk = _walk(any_from, all_from, all_to, any_to, n_queries)
        row = [k_flat + first, end - first, k_first + k_step * first, k_step, flat, q_first - phase.q_start, q_step]
        rows.append(_rows([*row, *walk, first], len(first)))
        flat, k_flat = flat + len(interval.queries), k_flat + len(interval.keys)
    return _heaviest_first(rows, phase.device)


def _walk(any_from: Any, all_from: Any, all_to: Any, any_to: Any, tile: int) -> list[np.ndarray]:
    """Return where the walk starts, where its whole tiles start and end, and where it ends, counted from its start."""
    any_to = np.maximum(any_from, any_to)
    whole_from = any_from + -(-(all_from - any_from) // tile) * tile
    n_whole = np.maximum(all_to - whole_from, 0) // tile
    whole_from = np.where(n_whole > 0, whole_from, any_from)
    return [any_from, whole_from, whole_from + n_whole * tile, any_to]


def _rows(columns: Sequence[Any], n: int) -> np.ndarray:
    table = np.zeros((n, 16), dtype=np.int32)
    for number, column in enumerate(columns):
        table[:, number] = column
    return table


def _heaviest_first(rows: list[np.ndarray], device: torch.device) -> Tensor:
    """Return the table with the longest walks first: a long tile that starts last would run alone."""
    table = np.concatenate(rows)
    return torch.as_tensor(table[np.argsort(table[:, 7] - table[:, 10], kind="stable")], device=device)


def _step(positions: np.ndarray) -> int | None:
    """Return the distance between neighbours, or None if they do not lie evenly."""
    steps = np.diff(positions)
    return None if (steps != steps[:1]).any() else int(steps[0]) if len(steps) else 1


def _line(positions: np.ndarray) -> tuple[int, int]:
    """Return the first position and the step; 0 if positions do not lie evenly: they are then looked up."""
    return int(positions[0]), _step(positions) or 0


# ---- launching ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _tiles(width: int, dtype: torch.dtype, device: torch.device) -> Trio:
    table = SINGLE
    if dtype != torch.float32:
        roomy = device.type == "cuda" and _shared_memory_bytes(device) >= 200_000
        table = HALF_ROOMY if roomy else HALF
    return next(trio for most, trio in table.items() if width <= most)


def _shared_memory_bytes(device: torch.device) -> int:
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0))


def _fitted(tiles: Tiles, phase: _PhaseTables) -> Tiles:
    """Return tiles no longer than the longest interval needs."""

    def least(length: int) -> int:
        return max(LEAST, 1 << (length - 1).bit_length())

    queries = min(tiles.queries, least(max(len(interval.queries) for interval in phase.intervals)))
    keys = min(tiles.keys, least(max(len(interval.keys) for interval in phase.intervals)))
    small = queries * keys * 4 <= tiles.queries * tiles.keys
    return Tiles(queries, keys, min(tiles.warps, 4) if small else tiles.warps, tiles.stages)


def _launches(
    q: Tensor, k: Tensor, text: str, q_start: int, documents: Tensor | None, plan: _Plan
) -> Iterator[tuple[_PhaseTables, int, int, dict[str, Any]]]:
    """Yield each phase, its number within its kind of head, its rows times heads, and the arguments of all kernels."""
    B, H, T, K = q.shape
    precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    if q.device.type == "cpu":
        precision = "widened"
    for first, kind in enumerate(plan.kinds[:H]):
        heads = -(-(H - first) // plan.step)
        for number, phase in enumerate(kind):
            yield phase, number, B * heads, {
                "lows": phase.low, "highs": phase.high, "queries": phase.queries, "keys": phase.keys,
                "documents": phase.low if documents is None else documents, "DOCUMENTS": documents is not None,
                "scale": K**-0.5 * LOG2E, "n_queries": T, "n_keys": k.shape[2], "q_start": q_start,
                "head_first": first, "head_step": plan.step, "heads_of_kind": heads, "n_heads": H,
                "WIDTH": K, "PADDED": max(LEAST, 1 << (K - 1).bit_length()),
                "GATHER_Q": phase.gather_queries, "GATHER_K": phase.gather_keys, "PRECISION": precision,
            }  # fmt: skip


def _run(kernel: Any, phase: _PhaseTables, rows_heads: int, tiles: Tiles, lay: Any, *args: Any, **named: Any) -> None:
    """Run a kernel over the tiles of a phase, over `rows_heads` rows times heads; `lay` makes the table of tiles."""
    tiles = _fitted(tiles, phase)
    table = lay(phase, tiles.queries, tiles.keys)
    kernel[(len(table), rows_heads)](
        *args, table=table, **named, QUERIES=tiles.queries, KEYS=tiles.keys, num_warps=tiles.warps,
        num_stages=tiles.stages,
    )  # fmt: skip


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which `device` is current: Triton launches there, whatever device the tensors are on."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def _forward(
    q: Tensor, k: Tensor, v: Tensor, pattern: str, q_start: int, documents: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the result in q's type, and the log-sum-exp of each query's scores, base 2."""
    from fewshot.kernels.triton_code import attend_queries

    q, k, v = ready(q, k, v)
    documents = None if documents is None else documents.contiguous()
    plan = _plan(pattern, q.shape[1], q.shape[2], k.shape[2], q_start, q.device)
    whole = plan.reads_all_at_first
    out = positions_first(q.shape, q, torch.float32 if plan.joins else q.dtype, zeros=not whole)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32) if whole else q.new_full(q.shape[:3], -torch.inf).float()
    tiles, *_ = _tiles(q.shape[3], q.dtype, q.device)
    with _on(q.device):
        for phase, number, rows_heads, named in _launches(q, k, pattern, q_start, documents, plan):
            join = number > 0 or not whole
            args = (q, k, v, out, lse, *_strides(q, k, v, out))
            _run(attend_queries, phase, rows_heads, tiles, _query_tiles, *args, **named, JOIN=join)
    return out.to(q.dtype), lse


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, pattern: str, q_start: int,
    documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v."""
    from fewshot.kernels.triton_code import differentiate_keys, differentiate_queries, dot_results

    B, H, T, K = q.shape
    kind = q.dtype
    q, k, v, out, grad = ready(q, k, v, out, grad.to(kind))
    documents = None if documents is None else documents.contiguous()
    plan = _plan(pattern, H, T, k.shape[2], q_start, q.device)
    held = torch.float32 if plan.joins else kind
    grad_q = positions_first(q.shape, q, held, zeros=not plan.reads_all_at_first)
    grad_k, grad_v = (positions_first(k.shape, q, held, zeros=not plan.read_at_first) for _ in range(2))
    delta = torch.empty_like(lse)
    _, tiles_q, tiles_k = _tiles(K, kind, q.device)
    with _on(q.device):
        strides = _strides(out, grad)
        padded = max(LEAST, 1 << (K - 1).bit_length())
        dot_results[(-(-T // 64), B * H)](out, grad, delta, *strides, T, H, WIDTH=K, PADDED=padded, QUERIES=64)
        for phase, number, rows_heads, named in _launches(q, k, pattern, q_start, documents, plan):
            named["width_scale"] = K**-0.5
            given, strides = (q, k, v, grad, lse, delta), _strides(q, k, v, grad)
            _run(
                differentiate_queries, phase, rows_heads, tiles_q, _query_tiles, *given, grad_q, *strides,
                *_strides(grad_q), **named, JOIN=number > 0 or not plan.reads_all_at_first,
            )  # fmt: skip
            _run(
                differentiate_keys, phase, rows_heads, tiles_k, _key_tiles, *given, grad_k, grad_v, *strides,
                *_strides(grad_k), **named, JOIN=number > 0 or not plan.read_at_first,
            )  # fmt: skip
    return grad_q.to(kind), grad_k.to(kind), grad_v.to(kind)


_attend = make_operator("triton", _forward, _backward)
