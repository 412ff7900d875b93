"""Attention over strips by Triton kernels: on CUDA, time and memory follow the pattern's allowed pairs.

A pattern is cut into strips
(patterns/intervals.py), in which each query reads one interval of a list of keys. Passes are
computed one after the other: their results are joined by their log-sum-exp, their gradients added. Positions that lie
evenly are computed, not looked up. `triton_code.py` holds the kernels; it is imported at first use, as Triton may not
be installed.
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
    """Positions of a tile, and how a program runs."""

    queries: int
    keys: int
    warps: int
    stages: int


# For heads up to so many columns: of attend_queries, differentiate_queries, differentiate_keys. Speed not measured:
# taken so that ptxas for an H100 spills little or nothing. "Roomy" needs 200 kB of shared memory (H100, B200).
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


def supports(need: Requirements) -> str | None:
    """None, or the reason why not."""
    if need.device != "cuda" and not (need.device == "cpu" and interpreted()):
        return f"it computes on CUDA, not on {need.device}"
    if need.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it computes float32, bfloat16 and float16, not {str(need.dtype).removeprefix('torch.')}"
    if need.width is not None and need.width > WIDEST:
        return f"it takes heads of up to {WIDEST} columns, not {need.width}"
    if need.dropout:
        return "it has no dropout on attention weights"
    if need.second_order:
        return "it has no second derivative"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if need.device == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0):
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
    dropout: float = 0.0,
) -> Float[Tensor, "B H T K"]:
    """Return attention as `need.Attend` says it. Raises BadValue for heads of more than WIDEST columns."""
    assert not dropout, "supports() refuses dropout"
    check_inputs(q, k, v, q_start, documents)
    if q.shape[3] > WIDEST:
        raise BadValue(f"the triton kernel takes heads of up to {WIDEST} columns, got {q.shape[3]}: use 'sdpa'")
    return _attend(q, k, v, pattern.text, q_start, documents)[0]


# ---- the plan: what the kernels read from tables --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Pass:
    """The strips of one pass, their intervals end to end on the device."""

    strips: tuple[Interval, ...]
    q_start: int
    device: torch.device
    gather_queries: bool  # whether the positions of some strip do not lie evenly
    gather_keys: bool
    low: Tensor
    high: Tensor
    queries: Tensor
    keys: Tensor

    @classmethod
    def of(cls, strips: tuple[Interval, ...], q_start: int, device: torch.device) -> _Pass:
        def joined(name: str) -> Tensor:
            lists = [getattr(strip, name) for strip in strips]
            return torch.as_tensor(np.concatenate(lists).astype(np.int32), device=device)

        def uneven(name: str) -> bool:
            return any(_step(getattr(strip, name)) is None for strip in strips)

        lists = (joined(name) for name in ("low", "high", "queries", "keys"))
        return cls(strips, q_start, device, uneven("queries"), uneven("keys"), *lists)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Of each kind of head the first one and its passes; heads are `step` apart."""

    step: int
    kinds: tuple[tuple[_Pass, ...], ...]
    reads_all_at_first: bool  # whether every query reads in the first pass of its kind: others are joined to it
    read_at_first: bool  # whether every key is in the first pass of its kind

    @property
    def joins(self) -> bool:
        """Whether results of several passes are joined: they are then held in float32."""
        return any(len(kind) > 1 for kind in self.kinds)


@lru_cache(maxsize=64)
def _plan(text: str, n_heads: int, n_queries: int, n_keys: int, q_start: int, device: torch.device) -> _Plan:
    (pattern,) = parse(text).patterns
    kinds = [phases(each, n_queries, n_keys, q_start, n_queries) for each in pattern.for_heads(n_heads)]
    firsts = [kind[0].strips for kind in kinds]
    n_reading = [sum(int((strip.high > strip.low).sum()) for strip in strips) for strips in firsts]
    n_read = [sum(len(strip.keys) for strip in strips) for strips in firsts]
    laid = tuple(tuple(_Pass.of(one.strips, q_start, device) for one in kind) for kind in kinds)
    return _Plan(len(kinds), laid, set(n_reading) == {n_queries}, set(n_read) == {n_keys})


@lru_cache(maxsize=512)
def _query_tiles(one: _Pass, n_queries: int, n_keys: int) -> Tensor:
    """Return a row of the table for each tile of queries, those with most keys first."""
    rows, flat, k_flat = [], 0, 0
    for strip in one.strips:
        first = np.arange(0, len(strip.queries), n_queries)
        last = np.minimum(first + n_queries, len(strip.queries)) - 1
        (q_first, q_step), (k_first, k_step) = _line(strip.queries), _line(strip.keys)
        walk = _walk(strip.low[first], strip.low[last], strip.high[first], strip.high[last], n_keys)
        row = [flat + first, last + 1 - first, q_first - one.q_start + q_step * first, q_step, k_flat, k_first, k_step]
        rows.append(_rows([*row, *walk, 0], len(first)))
        flat, k_flat = flat + len(strip.queries), k_flat + len(strip.keys)
    return _heaviest_first(rows, one.device)


@lru_cache(maxsize=512)
def _key_tiles(one: _Pass, n_queries: int, n_keys: int) -> Tensor:
    """Return a row of the table for each tile of keys, those with most queries first."""
    rows, flat, k_flat = [], 0, 0
    for strip in one.strips:
        first = np.arange(0, len(strip.keys), n_keys)
        end = np.minimum(first + n_keys, len(strip.keys))
        (q_first, q_step), (k_first, k_step) = _line(strip.queries), _line(strip.keys)
        low, high = strip.low, strip.high
        any_from, any_to = np.searchsorted(high, first, "right"), np.searchsorted(low, end, "left")
        all_from, all_to = np.searchsorted(high, end, "left"), np.searchsorted(low, first, "right")
        walk = _walk(any_from, all_from, all_to, any_to, n_queries)
        row = [k_flat + first, end - first, k_first + k_step * first, k_step, flat, q_first - one.q_start, q_step]
        rows.append(_rows([*row, *walk, first], len(first)))
        flat, k_flat = flat + len(strip.queries), k_flat + len(strip.keys)
    return _heaviest_first(rows, one.device)


def _walk(any_from: Any, all_from: Any, all_to: Any, any_to: Any, tile: int) -> list[np.ndarray]:
    """Where the walk starts, where its whole tiles start and end, and where it ends; all tiles count from the start."""
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
    """Return a long tile that starts last would run alone."""
    table = np.concatenate(rows)
    return torch.as_tensor(table[np.argsort(table[:, 7] - table[:, 10], kind="stable")], device=device)


def _step(positions: np.ndarray) -> int | None:
    """Return the distance between neighbours, or None if they do not lie evenly."""
    steps = np.diff(positions)
    return None if (steps != steps[:1]).any() else int(steps[0]) if len(steps) else 1


def _line(positions: np.ndarray) -> tuple[int, int]:
    """Return the first of the positions and the step between them; what it is does not matter if they are looked up."""
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


def _fitted(tiles: Tiles, one: _Pass) -> Tiles:
    """Return tiles no longer than the longest strip needs."""

    def least(length: int) -> int:
        return max(LEAST, 1 << (length - 1).bit_length())

    queries = min(tiles.queries, least(max(len(strip.queries) for strip in one.strips)))
    keys = min(tiles.keys, least(max(len(strip.keys) for strip in one.strips)))
    small = queries * keys * 4 <= tiles.queries * tiles.keys
    return Tiles(queries, keys, min(tiles.warps, 4) if small else tiles.warps, tiles.stages)


def _launches(
    q: Tensor, k: Tensor, text: str, q_start: int, documents: Tensor | None, plan: _Plan
) -> Iterator[tuple[_Pass, int, int, dict[str, Any]]]:
    """For each pass: it, its number, how many programs stand side by side, and what all kernels are told."""
    B, H, T, K = q.shape
    precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    if q.device.type == "cpu":
        precision = "widened"
    for first, kind in enumerate(plan.kinds[:H]):
        heads = -(-(H - first) // plan.step)
        for number, one in enumerate(kind):
            yield one, number, B * heads, {
                "lows": one.low, "highs": one.high, "queries": one.queries, "keys": one.keys,
                "documents": one.low if documents is None else documents, "DOCUMENTS": documents is not None,
                "scale": K**-0.5 * LOG2E, "n_queries": T, "n_keys": k.shape[2], "q_start": q_start,
                "head_first": first, "head_step": plan.step, "heads_of_kind": heads, "n_heads": H,
                "WIDTH": K, "PADDED": max(LEAST, 1 << (K - 1).bit_length()),
                "GATHER_Q": one.gather_queries, "GATHER_K": one.gather_keys, "PRECISION": precision,
            }  # fmt: skip


def _run(kernel: Any, one: _Pass, side: int, tiles: Tiles, of: Any, *args: Any, **told: Any) -> None:
    """Run a kernel over the tiles of a pass."""
    tiles = _fitted(tiles, one)
    table = of(one, tiles.queries, tiles.keys)
    kernel[(len(table), side)](
        *args, table=table, **told, QUERIES=tiles.queries, KEYS=tiles.keys, num_warps=tiles.warps,
        num_stages=tiles.stages,
    )  # fmt: skip


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return Triton launches on the current device, whatever the tensors say."""
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
        for one, number, side, told in _launches(q, k, pattern, q_start, documents, plan):
            join = number > 0 or not whole
            args = (q, k, v, out, lse, *_strides(q, k, v, out))
            _run(attend_queries, one, side, tiles, _query_tiles, *args, **told, JOIN=join)
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
        for one, number, side, told in _launches(q, k, pattern, q_start, documents, plan):
            told["width_scale"] = K**-0.5
            given, strides = (q, k, v, grad, lse, delta), _strides(q, k, v, grad)
            _run(
                differentiate_queries, one, side, tiles_q, _query_tiles, *given, grad_q, *strides, *_strides(grad_q),
                **told, JOIN=number > 0 or not plan.reads_all_at_first,
            )  # fmt: skip
            _run(
                differentiate_keys, one, side, tiles_k, _key_tiles, *given, grad_k, grad_v, *strides, *_strides(grad_k),
                **told, JOIN=number > 0 or not plan.read_at_first,
            )  # fmt: skip
    return grad_q.to(kind), grad_k.to(kind), grad_v.to(kind)


_attend = make_operator("triton", _forward, _backward)
