"""What a decoder must keep: which earlier positions a pattern can still read, and where each of them lies in a buffer.

A band needs a ring of its window, a block a ring of its length, summary columns stay for good and everything else of
`columns` is dropped; dense and strided attention keep all positions, strided ones in rows of equal residue, so that a
query finds its keys side by side. Of a kind that has no rule here all positions are kept, and `allows` finds the keys.
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

    First come the newest `n_recent` positions, in a ring (or, of a stride, in rows of equal residue), then a place for
    every summary column.
    """

    pattern: Pattern
    n_ctx: int
    n_recent: int  # positions kept whatever they are; n_ctx: all
    stride: int  # rows of the recent ones: 1, or the stride if all positions are kept
    columns: tuple[Columns, ...]

    @property
    def capacity(self) -> int:
        """Slots of the buffer."""
        return self._n_recent_slots + sum(self._n_slots(each) for each in self.columns)

    @property
    def _n_recent_slots(self) -> int:
        return -(-self.n_recent // self.stride) * self.stride

    def _n_slots(self, columns: Columns) -> int:
        return len(_summary(columns, self.n_ctx))

    def held(self, end: int) -> Positions:
        """Return the positions that are in the buffer after `end` positions were read, in order."""
        recent = np.arange(max(0, end - self.n_recent), end)
        return np.unique(np.concatenate([recent, *(_summary(each, end) for each in self.columns)]))

    def slots(self, positions: Positions, end: int) -> Positions:
        """Where these positions lie after `end` positions were read; each must be held."""
        rows = -(-self.n_recent // self.stride)
        ring = positions % self.n_recent
        found = np.where(positions >= end - self.n_recent, ring % self.stride * rows + ring // self.stride, -1)
        first_slot = self._n_recent_slots
        for each in self.columns:
            at, inside = _place(each, positions)
            found = np.where((found < 0) & inside, first_slot + at, found)
            first_slot += self._n_slots(each)
        assert (found >= 0).all(), "a position that was dropped is asked for"
        return found

    def writes(self, start: int, end: int) -> tuple[Positions, Positions]:
        """Return what reading positions `start` to `end` puts where: positions (one may come twice) and their slots."""
        new = np.arange(max(start, end - self.n_recent), end)
        positions, slots = [new], [self.slots(new, end)]
        first_slot = self._n_recent_slots
        for each in self.columns:
            inside = _summary(each, end)
            inside = inside[inside >= start]
            positions.append(inside)
            slots.append(first_slot + _place(each, inside)[0])
            first_slot += self._n_slots(each)
        return np.concatenate(positions), np.concatenate(slots)

    def new_slots(self, position: int) -> list[int]:
        """Where a position is put when it is read: what `writes` says of one position, in a few plain numbers."""
        rows, ring = -(-self.n_recent // self.stride), position % self.n_recent
        slots, first_slot = [ring % self.stride * rows + ring // self.stride], self._n_recent_slots
        for each in self.columns:
            offset = position % each.block - (each.block - (each.index + 1) * each.c)
            if 0 <= offset < each.c:
                slots.append(first_slot + position // each.block * each.c + offset)
            first_slot += self._n_slots(each)
        return slots

    def span(self, q: int) -> slice | None:
        """Return the slots that the query at `q` reads, if its pattern is one of those whose keys always lie side by
        side.
        """
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
        """Return the earliest position that the queries from `q` on can read, rounded down so that the pattern looks
        the same from there: for a band or a block what lies before can be cut off, for all others it is 0.
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
def kept(pattern: Pattern, n_ctx: int) -> CacheLayout:
    """Return how to keep what `pattern`, alike in all heads, can read again within `n_ctx` positions."""
    assert not pattern.needs_heads
    n_recent, stride, columns = 1, 1, []
    for part in pattern.parts:
        match part:
            case other if type(other) not in SIMPLE:
                n_recent = n_ctx
            case Dense():
                n_recent = n_ctx
            case Strided(each):
                n_recent, stride = n_ctx, each
            case Banded(window):
                n_recent = max(n_recent, window)
            case Block(block):
                n_recent = max(n_recent, block)
            case Columns():
                columns.append(part)
    if n_recent >= n_ctx:  # all are kept: the columns among them
        return CacheLayout(pattern, n_ctx, n_ctx, min(stride, n_ctx), ())
    return CacheLayout(pattern, n_ctx, n_recent, 1, tuple(columns))


@lru_cache(maxsize=64)  # the layers of one step ask for the same; an entry is as long as what the query reads
def readable_slots(kept: CacheLayout, q: int) -> Positions:
    """Return the slots of the keys that the query at `q` reads, once it was read itself; in no particular order."""
    return kept.slots(keys_of(kept.pattern, q), q + 1)


def keys_of(pattern: Pattern, q: int) -> Positions:
    """Return the positions that the query at position `q` reads, in order, in time that follows their number."""
    found = []
    for part in pattern.parts:
        match part:
            case other if type(other) not in SIMPLE:
                found.append(np.flatnonzero(other.allows(q, np.arange(q + 1))))
            case Dense():
                found.append(np.arange(q + 1))
            case Banded(window):
                found.append(np.arange(max(0, q - window + 1), q + 1))
            case Strided(stride):
                found.append(np.arange(q % stride, q + 1, stride))
            case Block(block):
                found.append(np.arange(q // block * block, q + 1))
            case Columns():
                found.append(np.append(_summary(part, q + 1), q))
    return np.unique(np.concatenate(found))


def _summary(columns: Columns, end: int) -> Positions:
    """Return the summary columns before position `end`."""
    first = columns.block - (columns.index + 1) * columns.c
    starts = np.arange(first, end, columns.block)
    positions = (starts[:, None] + np.arange(columns.c)).ravel()
    return positions[positions < end]


def _place(columns: Columns, positions: Positions) -> tuple[Positions, np.ndarray]:
    """Return the number of each position among the summary columns, and whether it is one."""
    offset = positions % columns.block - (columns.block - (columns.index + 1) * columns.c)
    return positions // columns.block * columns.c + offset, (offset >= 0) & (offset < columns.c)
