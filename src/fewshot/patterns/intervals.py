"""Patterns cut into strips, in which every query reads one interval of keys. In: a pattern, lengths. Out: NumPy arrays.

A strip is a list of query positions, a list of key positions, and for each query the interval of that key list that
it may read. A band is a strip of neighbours; a stride is one strip for each residue; fixed attention is a strip a block
and one of all summary columns. Overlaps of a merged head are cut away beforehand, so that no pair comes twice. A kernel
that can attend over intervals then computes any pattern, in time and memory that follow its allowed pairs. A kind that
has no strips of its own here gets one for each distance between query and key, from its `allows`: exact, and slow.

Refuses to know tensors and devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from fewshot.patterns.pattern import SIMPLE, Banded, Block, Columns, Dense, Pattern, Strided

Positions = Int[np.ndarray, " n"]

SEGMENT = 512  # fewest queries in a strip of a band: long enough that the keys read by two strips matter little


@dataclass(frozen=True, eq=False)
class Interval:
    """Queries and the keys that they may read: query i reads `keys[low[i]:high[i]]`; both ends never fall with i."""

    queries: Positions
    keys: Positions
    low: Positions
    high: Positions

    @property
    def n_pairs(self) -> int:
        """Query-key pairs in it."""
        return int((self.high - self.low).sum())


@dataclass(frozen=True, eq=False)
class Phase:
    """Strips that share neither a query nor a key: they can be computed side by side, gradients included."""

    strips: tuple[Interval, ...]


@lru_cache(maxsize=256)
def phases(
    pattern: Pattern, n_queries: int, n_keys: int, q_start: int = 0, segment: int = SEGMENT
) -> tuple[Phase, ...]:
    """Return all allowed pairs of a pattern that is alike in all heads, each exactly once.

    Query row t stands at position q_start + t, the keys at 0, ..., n_keys - 1 (q_start + n_queries at most).
    A query may come in several passes, in strips of different keys; it may be missing in some.
    `segment` is the fewest queries in a strip of a band: n_queries leaves it whole.
    """
    assert not pattern.needs_heads
    assert q_start + n_queries <= n_keys
    found: list[Phase] = []
    queries = np.arange(q_start, q_start + n_queries, dtype=np.int32)
    parts = sorted(pattern.parts, key=lambda part: type(part) not in SIMPLE)  # what they allow is cut away from others
    for number, part in enumerate(parts):
        earlier = parts[:number]
        strips_of = _strips if type(part) in SIMPLE else _strips_by_distance
        for strips in strips_of(part, earlier, queries, segment):
            kept = tuple(strip for strip in map(_trimmed, strips) if strip is not None)
            if kept:
                found.append(Phase(kept))
    return tuple(found)


def pairs_in_blocks(
    pattern: Pattern, n_queries: int, n_keys: int, block: int, q_start: int = 0
) -> Int[np.ndarray, "N M"]:
    """Return allowed pairs in each block of `block` queries x `block` keys; the last row and column may be cut.

    As `layout.block_counts`, but from the strips: n^2 / block steps rather than n^2.
    """
    edges = np.append(np.arange(0, n_keys, block), n_keys)
    counts = np.zeros((-(-n_queries // block), len(edges) - 1), dtype=np.int64)
    for one in phases(pattern, n_queries, n_keys, q_start, n_queries):
        for strip in one.strips:
            cuts = np.searchsorted(strip.keys, edges)  # where each block of keys begins in the strip's own list
            first, last = (int(strip.keys[i]) // block for i in (0, -1))
            rows = (strip.queries - q_start) // block
            starts = np.flatnonzero(np.diff(rows, prepend=-1))
            for x in range(first, last + 1):
                pairs = np.minimum(strip.high, cuts[x + 1]) - np.maximum(strip.low, cuts[x])
                counts[rows[starts], x] += np.add.reduceat(np.maximum(pairs, 0), starts)
    return counts


def _strips(part: Pattern, earlier: Sequence[Pattern], queries: Positions, segment: int) -> Iterator[list[Interval]]:
    """Yield the strips of a part of a kind in SIMPLE without what `earlier` parts, also of these, allow, one list a
    pass.
    """
    start, end = int(queries[0]), int(queries[-1]) + 1
    everything = np.arange(end, dtype=np.int32)
    match part:
        case Dense():
            yield [_strip(queries, everything, earlier)]
        case Banded(window):
            segment = max(window, segment)
            cuts = [queries[i : i + segment] for i in range(0, len(queries), segment)]
            strips = [
                _strip(cut, everything[max(0, int(cut[0]) - window + 1) : int(cut[-1]) + 1], earlier, window=window)
                for cut in cuts
            ]
            yield strips[::2]  # a segment is as long as the window: only neighbours share keys
            yield strips[1::2]
        case Block(block):
            edges = range(start // block * block, end, block)
            yield [
                _strip(everything[max(edge, start) : edge + block], everything[edge : edge + block], earlier)
                for edge in edges
            ]
        case Columns(block, c, index):
            first = block - index * c - c
            column = everything % block
            yield [_strip(queries, everything[(column >= first) & (column < first + c)], earlier)]
            alone = queries[(queries % block < first) | (queries % block >= first + c)]
            if not earlier and len(alone):  # every earlier part allows a query to read itself
                here = np.arange(len(alone), dtype=np.int32)
                yield [Interval(alone, alone, here, here + 1)]
        case Strided(stride):
            others = [other.stride for other in earlier if isinstance(other, Strided)]
            period = math.lcm(stride, *others)
            for ahead in range(0, min(period, end), stride):  # keys lag by this much, modulo the period
                if all(ahead % other for other in others):
                    yield [
                        _strip(queries[(residue - start) % period :: period],
                               everything[(residue - ahead) % period :: period], earlier)
                        for residue in range(min(period, end))
                    ]  # fmt: skip


def _strips_by_distance(
    part: Pattern, earlier: Sequence[Pattern], queries: Positions, segment: int
) -> Iterator[list[Interval]]:
    """Yield the strips of any part, as `_strips` gives them: each query reads one key at a distance, no two the
    same.
    """
    for distance in range(int(queries[-1]) + 1):
        far = queries[queries >= distance].astype(np.int64)
        allowed = part.allows(far, far - distance)
        for other in earlier:
            allowed = allowed & ~other.allows(far, far - distance)
        reading = far[allowed].astype(np.int32)
        here = np.arange(len(reading), dtype=np.int32)
        yield [Interval(reading, reading - distance, here, here + 1)]


def _strip(queries: Positions, keys: Positions, earlier: Sequence[Pattern], window: int | None = None) -> Interval:
    """Return the causal strip of these queries and keys, without the pairs that `earlier` parts allow."""
    for other in earlier:
        if isinstance(other, Columns):  # whatever the query: these keys are read already
            first = other.block - other.index * other.c - other.c
            keys = keys[(keys % other.block < first) | (keys % other.block >= first + other.c)]
    last = queries + (
        0 if earlier else 1
    )  # keys before this position are left; any earlier part allows the query itself
    for other in earlier:
        if isinstance(other, Banded):
            last = np.minimum(last, queries - other.window + 1)
        elif isinstance(other, Block):
            last = np.minimum(last, queries // other.block * other.block)
    high = np.searchsorted(keys, last).astype(np.int32)
    low = np.zeros_like(high) if window is None else np.searchsorted(keys, queries - window + 1).astype(np.int32)
    return Interval(queries, keys, np.minimum(low, high), high)


def _trimmed(strip: Interval) -> Interval | None:
    """Without queries that read nothing and keys that nobody reads at the ends; None if nothing is left."""
    reading = np.flatnonzero(strip.high > strip.low)
    if len(reading) == 0:
        return None
    rows = slice(int(reading[0]), int(reading[-1]) + 1)
    first, last = int(strip.low[rows].min()), int(strip.high[rows].max())
    return Interval(strip.queries[rows], strip.keys[first:last], strip.low[rows] - first, strip.high[rows] - first)
