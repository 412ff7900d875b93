"""Where a KV cache holds what can be read again: which positions of a pattern, and in which slot of a buffer.

A band needs a ring as long as its window, a block a ring as long as itself; summary columns stay for good, and all
other positions of `columns` are dropped. Dense and strided attention hold all positions, strided ones in rows of equal
residue, so that the keys of a query lie side by side. For a kind of pattern that has no rule here all positions are
held, and `allows` finds the keys.
In: a pattern, lengths. Out: NumPy arrays. Refuses to know tensors and devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from fewshot.patterns.pattern import SIMPLE, Banded, Block, Columns, Dense, Pattern, Strided

Positions = Int[np.ndarray, " n"]


@dataclass(frozen=True)
class CacheLayout:
    """Where the positions of one pattern, alike in all heads, lie in a buffer of `capacity` slots.

    First come the newest `n_recent` positions, in a ring (or, for a stride, in rows of equal residue), then a slot for
    every summary column.
    """

    pattern: Pattern
    n_ctx: int
    n_recent: int  # newest positions, which are held whatever they are; n_ctx: all positions
    stride: int  # rows of the recent positions: 1, or the stride if all positions are held
    columns: tuple[Columns, ...]

    @property
    def capacity(self) -> int:
        """Slots of the buffer."""
        return self._n_recent_slots + sum(self._n_slots(columns) for columns in self.columns)

    @property
    def _n_recent_slots(self) -> int:
        return -(-self.n_recent // self.stride) * self.stride

    def _n_slots(self, columns: Columns) -> int:
        return len(_summary(columns, self.n_ctx))

    def held(self, end: int) -> Positions:
        """Return the positions that the buffer holds after `end` positions were read, in order."""
        recent = np.arange(max(0, end - self.n_recent), end)
        return np.unique(np.concatenate([recent, *(_summary(columns, end) for columns in self.columns)]))

    def slots(self, positions: Positions, end: int) -> Positions:
        """Return the slots of these positions after `end` positions were read; each position must be held."""
        rows = -(-self.n_recent // self.stride)
        ring = positions % self.n_recent
        slots = np.where(positions >= end - self.n_recent, ring % self.stride * rows + ring // self.stride, -1)
        first_slot = self._n_recent_slots
        for columns in self.columns:
            numbers, is_summary = _number(columns, positions)
            slots = np.where((slots < 0) & is_summary, first_slot + numbers, slots)
            first_slot += self._n_slots(columns)
        assert (slots >= 0).all(), "a position that was dropped is asked for"
        return slots

    def writes(self, start: int, end: int) -> tuple[Positions, Positions]:
        """Return what reading positions `start` to `end` writes: positions (one may come twice) and a slot for each."""
        new = np.arange(max(start, end - self.n_recent), end)
        positions, slots = [new], [self.slots(new, end)]
        first_slot = self._n_recent_slots
        for columns in self.columns:
            summary = _summary(columns, end)
            summary = summary[summary >= start]
            positions.append(summary)
            slots.append(first_slot + _number(columns, summary)[0])
            first_slot += self._n_slots(columns)
        return np.concatenate(positions), np.concatenate(slots)

    def new_slots(self, position: int) -> list[int]:
        """Return the slots that one position is written to when it is read: as `writes`, without arrays."""
        rows, ring = -(-self.n_recent // self.stride), position % self.n_recent
        slots, first_slot = [ring % self.stride * rows + ring // self.stride], self._n_recent_slots
        for columns in self.columns:
            offset = position % columns.block - (columns.block - (columns.index + 1) * columns.c)
            if 0 <= offset < columns.c:
                slots.append(first_slot + position // columns.block * columns.c + offset)
            first_slot += self._n_slots(columns)
        return slots

    def span(self, q: int) -> slice | None:
        """Return the slots that the query at `q` reads, if the pattern's keys always lie side by side; else None."""
        match self.pattern:
            case other if type(other) not in SIMPLE:
                return None
            case Dense():
                return slice(0, q + 1)
            case Banded():
                return slice(0, min(q + 1, self.n_recent))
            case Block():
                return slice(0, q % self.n_recent + 1)
            case Strided():
                rows = -(-self.n_recent // self.stride)
                return slice(q % self.stride * rows, q % self.stride * rows + q // self.stride + 1)
            case _:
                return None

    def first_needed(self, q: int) -> int:
        """Return the earliest position that the queries from `q` on can read.

        Rounded down so that the pattern is the same when positions are counted from there: what lies before can be
        cut off for a band or a block; for all others it is 0.
        """
        match self.pattern:
            case other if type(other) not in SIMPLE:
                return 0
            case Banded(window):
                return max(0, q - window + 1)
            case Block(block):
                return q // block * block
            case _:
                return 0


@lru_cache(maxsize=256)
def cache_layout(pattern: Pattern, n_ctx: int) -> CacheLayout:
    """Return how a cache holds what `pattern`, alike in all heads, can read again within `n_ctx` positions."""
    assert not pattern.needs_heads
    n_recent, stride, columns = 1, 1, []
    for part in pattern.parts:
        match part:
            case other if type(other) not in SIMPLE:
                n_recent = n_ctx
            case Dense():
                n_recent = n_ctx
            case Strided(length):
                n_recent, stride = n_ctx, length
            case Banded(window):
                n_recent = max(n_recent, window)
            case Block(block):
                n_recent = max(n_recent, block)
            case Columns():
                columns.append(part)
    if n_recent >= n_ctx:  # all positions are held, the columns among them
        return CacheLayout(pattern, n_ctx, n_ctx, min(stride, n_ctx), ())
    return CacheLayout(pattern, n_ctx, n_recent, 1, tuple(columns))


@lru_cache(maxsize=64)  # the layers of one step ask for the same; an entry is as long as what the query reads
def readable_slots(layout: CacheLayout, q: int) -> Positions:
    """Return the slots of the keys that the query at `q` reads, once it was read itself; in no particular order."""
    return layout.slots(keys_of(layout.pattern, q), q + 1)


def keys_of(pattern: Pattern, q: int) -> Positions:
    """Return the positions that the query at position `q` reads, in order, in time that follows their number."""
    keys = []
    for part in pattern.parts:
        match part:
            case other if type(other) not in SIMPLE:
                keys.append(np.flatnonzero(other.allows(q, np.arange(q + 1))))
            case Dense():
                keys.append(np.arange(q + 1))
            case Banded(window):
                keys.append(np.arange(max(0, q - window + 1), q + 1))
            case Strided(stride):
                keys.append(np.arange(q % stride, q + 1, stride))
            case Block(block):
                keys.append(np.arange(q // block * block, q + 1))
            case Columns():
                keys.append(np.append(_summary(part, q + 1), q))
    return np.unique(np.concatenate(keys))


def _summary(columns: Columns, end: int) -> Positions:
    """Return the summary columns before position `end`."""
    first = columns.block - (columns.index + 1) * columns.c
    starts = np.arange(first, end, columns.block)
    positions = (starts[:, None] + np.arange(columns.c)).ravel()
    return positions[positions < end]


def _number(columns: Columns, positions: Positions) -> tuple[Positions, np.ndarray]:
    """Return the number of each position among the summary columns, and whether it is one."""
    offset = positions % columns.block - (columns.block - (columns.index + 1) * columns.c)
    return positions // columns.block * columns.c + offset, (offset >= 0) & (offset < columns.c)
