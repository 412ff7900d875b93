"""Which positions a query reads, which may be read again, and in which pages of a KV cache they lie.

A cache holds keys and values in pages of 16 positions; a mask of 16 bits tells which positions of a page a query reads.
A band needs the pages of its window, a block those of itself; pages with summary columns stay for good. Dense and
strided attention need all pages, and so does a kind of pattern that has no rule here: `allows` finds its keys.
In: a pattern that is alike in all heads, positions. Out: NumPy arrays. Refuses to know tensors and devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int, UInt16

from fewshot.patterns.pattern import SIMPLE, Banded, Block, Columns, Dense, Pattern, Strided

Positions = Int[np.ndarray, " n"]
PAGE = 16  # positions


def keys_of(pattern: Pattern, q: int) -> Positions:
    """Return the positions that the query at position `q` reads, in order, in time that follows their number."""
    first = _first_of_run(pattern, q)
    if first is not None:
        return np.arange(first, q + 1)
    keys = []
    for part in pattern.parts:
        match part:
            case other if type(other) not in SIMPLE:
                keys.append(np.flatnonzero(other.allows(q, np.arange(q + 1))))
            case Strided(stride):
                keys.append(np.arange(q % stride, q + 1, stride))
            case Columns():
                keys.append(np.append(_summary(part, q + 1), q))
            case _:
                keys.append(keys_of(part, q))
    return np.unique(np.concatenate(keys))


def is_dense(pattern: Pattern, n_ctx: int, n_heads: int) -> bool:
    """Return whether every position of a context reads all positions up to itself, in all heads: a wide band does."""
    return band_of(pattern, n_ctx, n_heads) == n_ctx


def band_of(pattern: Pattern, n_ctx: int, n_heads: int) -> int | None:
    """Return the window, up to n_ctx, if every position reads its last positions alone, in all heads; else None."""
    kinds = set(pattern.for_heads(n_heads))
    window = max(len(keys_of(kind, n_ctx - 1)) for kind in kinds)
    for kind in kinds - {Dense() if window == n_ctx else Banded(window)}:
        for q in reversed(range(n_ctx)):
            keys = keys_of(kind, q)
            if len(keys) != min(q + 1, window) or keys[0] != q + 1 - len(keys):
                return None
    return window


def _first_of_run(pattern: Pattern, q: int) -> int | None:
    """Return the first key of a query whose keys are all positions from there to itself; None for other patterns."""
    match pattern:
        case other if type(other) not in SIMPLE:
            return None
        case Dense():
            return 0
        case Banded(window):
            return max(0, q - window + 1)
        case Block(block):
            return q // block * block
        case _:
            return None


def held(pattern: Pattern, n_ctx: int, end: int) -> Positions:
    """Return the positions before `end` that later ones, `n_ctx` in all, may read; or a few more."""
    n_recent, columns = 0, []
    for part in pattern.parts:
        match part:
            case other if type(other) not in SIMPLE:
                n_recent = n_ctx
            case Dense() | Strided():
                n_recent = n_ctx
            case Banded(window):
                n_recent = max(n_recent, window - 1)
            case Block(block):
                n_recent = max(n_recent, end % block)
            case Columns():
                columns.append(_summary(part, end))
    return np.unique(np.concatenate([np.arange(max(0, end - n_recent), end), *columns]))


@lru_cache(maxsize=1 << 14)
def page_list(
    pattern: Pattern, first: int, n_queries: int, width: int
) -> tuple[Int[np.ndarray, " P"], UInt16[np.ndarray, "P W"]]:
    """Return the pages that the queries at `first` and the next positions read, and for each its mask of every query.

    Masks have `width` columns, zero where there is no query.
    """
    starts = [_first_of_run(pattern, first + i) for i in range(n_queries)]
    if starts[0] is not None:
        return _pages_of_runs([start or 0 for start in starts], first, width)
    keys = [keys_of(pattern, first + i) for i in range(n_queries)]
    pages = np.unique(np.concatenate(keys) // PAGE)
    masks = np.zeros((len(pages), width), dtype=np.uint16)
    for i, positions in enumerate(keys):
        at = np.searchsorted(pages, positions // PAGE)
        masks[:, i] = np.bincount(at, weights=1 << (positions % PAGE), minlength=len(pages))  # no bit comes twice
    return pages, masks


def _pages_of_runs(starts: Sequence[int], first: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what `page_list` does for queries that read all positions from their starts to themselves."""
    pages = np.arange(min(starts) // PAGE, (first + len(starts) - 1) // PAGE + 1)
    places = np.arange(PAGE) + PAGE * pages[:, None]
    masks = np.zeros((len(pages), width), dtype=np.uint16)
    for i, start in enumerate(starts):
        whole = slice(-(-start // PAGE) - pages[0], (first + i + 1) // PAGE - pages[0])
        masks[whole, i] = 0xFFFF
        for end in {start // PAGE - pages[0], (first + i) // PAGE - pages[0]}:
            read = (places[end] >= start) & (places[end] <= first + i)
            masks[end, i] = (read << np.arange(PAGE)).sum()
    return pages, masks


@lru_cache(maxsize=1 << 13)
def pages_needed(pattern: Pattern, n_ctx: int, end: int) -> frozenset[int]:
    """Return the pages, of those that `end` positions begin to fill, that go on being filled or may be read again."""
    pages = set((held(pattern, n_ctx, end) // PAGE).tolist())
    return frozenset(pages | {end // PAGE} if end % PAGE else pages)


@lru_cache(maxsize=1 << 10)
def most_pages(pattern: Pattern, n_ctx: int, length: int, n_new: int) -> int:
    """Return how many pages a text of `length` positions needs at once.

    If steps read one position, or `n_new`, which is 1 or whole pages, or what is left of a prompt. The rules repeat
    with the blocks, and summary columns only grow in number: no position needs more than the one a period later, so the
    last period before the last whole step is looked at, and what follows it.
    """
    if any(type(part) not in SIMPLE or isinstance(part, Dense | Strided) for part in pattern.parts):
        return -(-length // PAGE)
    period = math.lcm(PAGE, *(part.block for part in pattern.parts if isinstance(part, Block | Columns)))
    first = max(0, length - n_new - period) // PAGE * PAGE
    ends = {min(length, start + place) for start in range(first, length, PAGE) for place in (0, 1, PAGE - 1)}
    return max((_pages_of_step(pattern, n_ctx, end, min(n_new, length - end)) for end in ends), default=0)


def _pages_of_step(pattern: Pattern, n_ctx: int, end: int, n_new: int) -> int:
    return len(pages_needed(pattern, n_ctx, end) | set(range(-(-end // PAGE), -(-(end + n_new) // PAGE))))


def _summary(columns: Columns, end: int) -> Positions:
    """Return the summary columns before position `end`."""
    first = columns.block - (columns.index + 1) * columns.c
    starts = np.arange(first, end, columns.block)
    positions = (starts[:, None] + np.arange(columns.c)).ravel()
    return positions[positions < end]
