"""Cut a pattern into key intervals, grouped in phases. In: a pattern, lengths. Out: NumPy arrays.

An `Interval` is a list of query positions, a list of key positions, and for each query the contiguous range of that key
list that it may read. A band is an interval of neighbours; a stride is an interval for each residue; fixed attention is
an interval for each block and one for all summary columns. Where the parts of a merged head overlap, the overlap is cut
away beforehand, so that no pair comes twice. A kernel that computes attention over intervals can then compute any
pattern, in time and memory that follow its allowed pairs. A kind of pattern that has no rule here gets an interval for
each distance between query and key, from its `allows`: exact, and slow.

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

SEGMENT = (
    512  # fewest queries in an interval of a band: long enough that the few keys read by two intervals cost little
)


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
    """Intervals that share neither a query nor a key: they can be computed side by side, gradients included."""

    intervals: tuple[Interval, ...]


@lru_cache(maxsize=256)
def phases(
    pattern: Pattern, n_queries: int, n_keys: int, q_start: int = 0, segment: int = SEGMENT
) -> tuple[Phase, ...]:
    """Return all allowed pairs of a pattern that is alike in all heads, each exactly once, as phases of intervals.

    Query row t stands at position q_start + t, the keys at 0, ..., n_keys - 1 (q_start + n_queries at most).
    A query may come in several phases, with different keys; it may be missing in some.
    `segment` is the fewest queries in an interval of a band: n_queries leaves it whole.
    """
    assert not pattern.needs_heads
    assert q_start + n_queries <= n_keys
    result: list[Phase] = []
    queries = np.arange(q_start, q_start + n_queries, dtype=np.int32)
    parts = sorted(pattern.parts, key=lambda part: type(part) not in SIMPLE)  # what they allow is cut away from others
    for number, part in enumerate(parts):
        earlier = parts[:number]
        intervals_of = _intervals if type(part) in SIMPLE else _intervals_by_distance
        for intervals in intervals_of(part, earlier, queries, segment):
            trimmed = tuple(interval for interval in map(_trimmed, intervals) if interval is not None)
            if trimmed:
                result.append(Phase(trimmed))
    return tuple(result)


def pairs_in_blocks(
    pattern: Pattern, n_queries: int, n_keys: int, block: int, q_start: int = 0
) -> Int[np.ndarray, "N M"]:
    """Count the allowed pairs in each block of `block` queries x `block` keys; the last row and column may be cut.

    As `layout.block_counts`, but from the intervals: n^2 / block steps rather than n^2.
    """
    edges = np.append(np.arange(0, n_keys, block), n_keys)
    counts = np.zeros((-(-n_queries // block), len(edges) - 1), dtype=np.int64)
    for phase in phases(pattern, n_queries, n_keys, q_start, n_queries):
        for interval in phase.intervals:
            cuts = np.searchsorted(interval.keys, edges)  # where each block of keys begins in the interval's own list
            first, last = (int(interval.keys[i]) // block for i in (0, -1))
            rows = (interval.queries - q_start) // block
            starts = np.flatnonzero(np.diff(rows, prepend=-1))
            for x in range(first, last + 1):
                pairs = np.minimum(interval.high, cuts[x + 1]) - np.maximum(interval.low, cuts[x])
                counts[rows[starts], x] += np.add.reduceat(np.maximum(pairs, 0), starts)
    return counts


def _intervals(part: Pattern, earlier: Sequence[Pattern], queries: Positions, segment: int) -> Iterator[list[Interval]]:
    """Yield the intervals of a part, without the pairs that `earlier` parts allow: one list for each phase.

    The part and the earlier ones are of kinds in SIMPLE.
    """
    start, end = int(queries[0]), int(queries[-1]) + 1
    everything = np.arange(end, dtype=np.int32)
    match part:
        case Dense():
            yield [_interval(queries, everything, earlier)]
        case Banded(window):
            segment = max(window, segment)
            cuts = [queries[i : i + segment] for i in range(0, len(queries), segment)]
            intervals = [
                _interval(cut, everything[max(0, int(cut[0]) - window + 1) : int(cut[-1]) + 1], earlier, window=window)
                for cut in cuts
            ]
            yield intervals[::2]  # a segment is as long as the window: only neighbours share keys
            yield intervals[1::2]
        case Block(block):
            edges = range(start // block * block, end, block)
            yield [
                _interval(everything[max(edge, start) : edge + block], everything[edge : edge + block], earlier)
                for edge in edges
            ]
        case Columns(block, c, index):
            first = block - index * c - c
            column = everything % block
            yield [_interval(queries, everything[(column >= first) & (column < first + c)], earlier)]
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
                        _interval(queries[(residue - start) % period :: period],
                               everything[(residue - ahead) % period :: period], earlier)
                        for residue in range(min(period, end))
                    ]  # fmt: skip


def _intervals_by_distance(
    part: Pattern, earlier: Sequence[Pattern], queries: Positions, segment: int
) -> Iterator[list[Interval]]:
    """Yield the intervals of a part of any kind, as `_intervals` does: a phase for each distance from query to key."""
    for distance in range(int(queries[-1]) + 1):
        far = queries[queries >= distance].astype(np.int64)
        allowed = part.allows(far, far - distance)
        for other in earlier:
            allowed = allowed & ~other.allows(far, far - distance)
        reading = far[allowed].astype(np.int32)
        here = np.arange(len(reading), dtype=np.int32)
        yield [Interval(reading, reading - distance, here, here + 1)]


def _interval(queries: Positions, keys: Positions, earlier: Sequence[Pattern], window: int | None = None) -> Interval:
    """Return these queries with the keys that they may read, without the pairs that `earlier` parts allow."""
    for other in earlier:
        if isinstance(other, Columns):  # whatever the query: these keys are read already
            first = other.block - other.index * other.c - other.c
            keys = keys[(keys % other.block < first) | (keys % other.block >= first + other.c)]
    # Keys before `last` are left; any earlier part allows the query itself.
    last = queries + (0 if earlier else 1)
    for other in earlier:
        if isinstance(other, Banded):
            last = np.minimum(last, queries - other.window + 1)
        elif isinstance(other, Block):
            last = np.minimum(last, queries // other.block * other.block)
    high = np.searchsorted(keys, last).astype(np.int32)
    low = np.zeros_like(high) if window is None else np.searchsorted(keys, queries - window + 1).astype(np.int32)
    return Interval(queries, keys, np.minimum(low, high), high)


def _trimmed(interval: Interval) -> Interval | None:
    """Cut off queries that read nothing, and keys that nobody reads, at the ends; None if nothing is left."""
    reading = np.flatnonzero(interval.high > interval.low)
    if len(reading) == 0:
        return None
    rows = slice(int(reading[0]), int(reading[-1]) + 1)
    first, last = int(interval.low[rows].min()), int(interval.high[rows].max())
    return Interval(
        interval.queries[rows], interval.keys[first:last], interval.low[rows] - first, interval.high[rows] - first
    )
