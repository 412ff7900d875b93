"""Attention over key intervals in torch's own operations: sparse on a CPU and on any GPU, no compiler needed.

Intervals of the same form are computed side by side, in tiles of queries against the keys that these read. The backward
pass computes the weights again, tile by tile, so that nothing of a tile is held in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Requirements
from fewshot.kernels.operator import make_operator, phases_by_head, positions_first, without_autocast
from fewshot.kernels.reference import check_inputs
from fewshot.patterns.intervals import Interval
from fewshot.patterns.pattern import Pattern

TILE = 128  # queries worked on at a time: longer tiles compute more pairs outside a band, shorter ones start more work
MAX_SCORES = {
    "cpu": 2**20,
    "cuda": 2**25,
}  # of one tile, over all its intervals and heads: on a CPU 4 MB, to stay in its cache


def supports(requirements: Requirements) -> str | None:
    """Return why the kernel cannot be used, or None if it can."""
    if requirements.dropout:
        return "it has no dropout on attention weights"
    return "it has no second derivative" if requirements.second_order else None


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
    """Return attention as `interface.Attend` defines it."""
    assert not dropout, "supports() refuses dropout"
    check_inputs(q, k, v, q_start, documents)
    return _attend(q, k, v, pattern.text, q_start, documents)[0] if q.numel() else q.clone()


Index = tuple[slice | Tensor | None, ...]  # for the positions of a tensor: gives [G, rows], a view where it can be one


@dataclass(frozen=True, eq=False)
class _Tile:
    """Queries of G intervals of the same form against the keys that they read."""

    heads: slice
    queries: Index  # rows of q
    positions: Index  # of the queries
    keys: Index
    n_keys: int  # of each interval
    low: Tensor  # [queries, 1]: each reads keys low to high of those that its interval has in this tile
    high: Tensor

    def forbidden(self, documents: Tensor | None) -> Tensor:
        """Return which pairs are not allowed: [queries, keys], or with documents [B, 1, G, queries, keys]."""
        place = torch.arange(self.n_keys, device=self.low.device)
        outside = (place < self.low) | (place >= self.high)
        if documents is None:
            return outside
        own, other = documents[(slice(None), *self.positions)], documents[(slice(None), *self.keys)]
        return outside | (own[:, None, :, :, None] != other[:, None, :, None, :])


@lru_cache(maxsize=64)
def _plan(text: str, n_heads: int, n_queries: int, n_keys: int, q_start: int, device: str, most: int) -> list[_Tile]:
    """Return all tiles, phase after phase; each has at most `most` pairs a head, or a single interval."""
    return [
        tile
        for heads, phases in phases_by_head(text, n_heads, n_queries, n_keys, q_start)
        for phase in phases
        for _, same in itertools.groupby(phase.intervals, _form)
        for tile in _tiles(heads, list(same), q_start, device, most)
    ]


def _form(interval: Interval) -> tuple[bytes, bytes]:
    return interval.low.tobytes(), interval.high.tobytes()


def _tiles(heads: slice, intervals: list[Interval], q_start: int, device: str, most: int) -> Iterator[_Tile]:
    """Yield the tiles of intervals of the same form."""
    low, high = intervals[0].low, intervals[0].high
    for start in range(0, len(low), TILE):
        rows = slice(start, start + TILE)
        columns = slice(int(low[start]), int(high[rows][-1]))
        n_pairs = len(low[rows]) * (columns.stop - columns.start)
        ends = [torch.from_numpy(end[rows, None].astype(np.int64) - columns.start).to(device) for end in (low, high)]
        several = max(1, most // n_pairs)
        for some in (intervals[i : i + several] for i in range(0, len(intervals), several)):
            positions = np.stack([interval.queries[rows] for interval in some])
            keys = np.stack([interval.keys[columns] for interval in some])
            yield _Tile(
                heads, _index(positions - q_start, device), _index(positions, device), _index(keys, device),
                keys.shape[1], *ends,
            )  # fmt: skip


def _index(positions: np.ndarray, device: str) -> Index:
    """Return [G, rows] as a slice where they are evenly spaced numbers of one interval."""
    steps = np.unique(np.diff(positions[0]))
    if len(positions) == 1 and len(steps) <= 1:
        step = int(steps[0]) if len(steps) else 1
        return None, slice(int(positions[0, 0]), int(positions[0, -1]) + 1, step)
    return (torch.from_numpy(positions.astype(np.int64)).to(device),)


def _rows(x: Tensor, heads: slice, index: Index) -> Tensor:
    """Return [B, heads, G, rows, ...] of x."""
    return x[:, heads][(slice(None), slice(None), *index)]


def _factor(x: Tensor, heads: slice, index: Index) -> Tensor:
    """Return `_rows` in the type of the products: the tensor's own on a GPU, at least float32 on a CPU."""
    rows = _rows(x, heads, index)
    return rows if x.is_cuda else rows.to(torch.promote_types(x.dtype, torch.float32))


def _scores(q: Tensor, k: Tensor, forbidden: Tensor, scale: float) -> Tensor:
    """Return masked scores of one tile, in float32 or wider."""
    scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * scale
    return scores.masked_fill_(forbidden, -torch.inf)


def _tiles_of(q: Tensor, k: Tensor, text: str, q_start: int) -> list[_Tile]:
    B, H, T, _ = q.shape
    most = MAX_SCORES["cpu" if q.device.type == "cpu" else "cuda"] // (B * H)
    return _plan(text, H, T, k.shape[2], q_start, str(q.device), max(1, most))


def _forward(
    q: Tensor, k: Tensor, v: Tensor, pattern: str, q_start: int, documents: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the result in q's type, and the natural log-sum-exp of each query's scores."""
    wide, scale = torch.promote_types(q.dtype, torch.float32), q.shape[-1] ** -0.5
    out = positions_first(q.shape, q, wide)
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=wide)
    for tile in _tiles_of(q, k, pattern, q_start):
        heads, queries = tile.heads, tile.queries
        k_rows, v_rows = (_factor(x, heads, tile.keys) for x in (k, v))
        scores = _scores(_factor(q, heads, queries), k_rows, tile.forbidden(documents), scale)
        known = _rows(lse, heads, queries)
        joined = torch.logaddexp(known, scores.logsumexp(dim=-1))
        base = joined.masked_fill(joined == -torch.inf, 0)  # a query that has read nothing yet
        weights = scores.sub_(base[..., None]).exp_()
        mixed = _rows(out, heads, queries) * (known - base).exp()[..., None] + weights.to(v_rows.dtype) @ v_rows
        _put(out, heads, queries, mixed)
        _put(lse, heads, queries, joined)
    return out.to(q.dtype), lse


def _put(whole: Tensor, heads: slice, index: Index, part: Tensor) -> None:
    whole[:, heads][(slice(None), slice(None), *index)] = part


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, pattern: str, q_start: int,
    documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v."""
    wide, scale = torch.promote_types(q.dtype, torch.float32), q.shape[-1] ** -0.5
    delta = (grad.to(wide) * out.to(wide)).sum(dim=-1)
    grads = [positions_first(x.shape, q, wide) for x in (q, k, v)]
    for tile in _tiles_of(q, k, pattern, q_start):
        heads, queries, keys = tile.heads, tile.queries, tile.keys
        q_rows, grad_rows = _factor(q, heads, queries), _factor(grad, heads, queries)
        k_rows, v_rows = _factor(k, heads, keys), _factor(v, heads, keys)
        weights = _scores(q_rows, k_rows, tile.forbidden(documents), scale)
        weights = weights.sub_(_rows(lse, heads, queries)[..., None]).exp_()
        grad_scores = (grad_rows @ v_rows.mT).to(wide).sub_(_rows(delta, heads, queries)[..., None])
        grad_scores = grad_scores.mul_(weights).mul_(scale)
        grad_scores, weights = grad_scores.to(q_rows.dtype), weights.to(q_rows.dtype)
        parts = (grad_scores @ k_rows, grad_scores.mT @ q_rows, weights.mT @ grad_rows)
        for whole, index, part in zip(grads, (queries, keys, keys), parts, strict=True):
            _put(whole, heads, index, _rows(whole, heads, index) + part)  # the intervals of a phase share no row
    grad_q, grad_k, grad_v = (gradient.to(q.dtype) for gradient in grads)
    return grad_q, grad_k, grad_v


_attend = make_operator("blocked", without_autocast(_forward), without_autocast(_backward))
