"""Count what patterns read: a pattern and a length go in, NumPy masks, block layouts and numbers come out.

Whole-length functions work through rows in pieces, so that n = 8192 needs megabytes, not gigabytes.
Refuses to know tensors and devices.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from fewshot.base.errors import check
from fewshot.patterns.pattern import Pattern
from fewshot.patterns.schedule import Schedule

HEADS = 4  # looked at where `allows` tells heads apart, as nothing says after how many they repeat
_ROWS = 512  # queries worked on at a time


def mask(
    pattern: Pattern, n_queries: int, n_keys: int, q_start: int = 0, head: int = 0
) -> Bool[np.ndarray, "{n_queries} {n_keys}"]:
    """Return which query may read which key; query row t stands at position q_start + t, the keys at 0, 1, ..."""
    queries = np.arange(q_start, q_start + n_queries, dtype=np.int32)[:, None]
    return pattern.for_head(head).allows(queries, np.arange(n_keys, dtype=np.int32))


def keys_per_query(pattern: Pattern, n: int, head: int = 0) -> Int[np.ndarray, " n"]:
    """Return how many keys each of `n` positions reads."""
    return np.concatenate([rows.sum(axis=1) for rows in _mask_rows(pattern, n, head)])


def mean_keys_per_query(pattern: Pattern, n: int) -> float:
    """Return how many keys a query reads, averaged over `n` positions and over heads.

    Over the first HEADS heads, if all may differ.
    """
    return float(np.mean([keys_per_query(at_head, n).mean() for at_head in pattern.for_heads(HEADS)]))


def density(pattern: Pattern, n: int) -> float:
    """Return allowed pairs / causal pairs of `n` positions, averaged over heads: 1 for dense attention."""
    return mean_keys_per_query(pattern, n) / ((n + 1) / 2)


def block_counts(pattern: Pattern, n: int, block: int, head: int = 0) -> Int[np.ndarray, "N N"]:
    """Count the allowed pairs in each block of `block` x `block` positions; the last row and column may be cut."""
    check(block >= 1, f"a block needs at least 1 position, got {block}")
    starts = np.arange(0, n, block)
    in_rows = [np.add.reduceat(rows, starts, axis=1, dtype=np.int64) for rows in _mask_rows(pattern, n, head)]
    return np.add.reduceat(np.concatenate(in_rows), starts, axis=0)


def blocks(pattern: Pattern, n: int, block: int, head: int = 0) -> Bool[np.ndarray, "N N"]:
    """Return which blocks of `block` x `block` positions a block-sparse kernel must compute: those with a pair."""
    return block_counts(pattern, n, block, head) > 0


def hops(schedule: Schedule, n: int) -> int | None:
    """Return the smallest number of layers after which every position has heard of every earlier one; None if never.

    Layers follow the schedule from layer 0, cycled; the heads of a layer read together. 1 for dense attention,
    2 for a valid factorisation in two steps (Child et al. 2019, section 4.2), 0 for a single position.
    """
    goal = np.packbits(np.tri(n, dtype=bool), axis=1)
    for n_layers, heard in enumerate(_heard(schedule, n)):
        if np.array_equal(heard, goal):
            return n_layers
    return None


def layers_until_heard(schedule: Schedule, n: int) -> Int[np.ndarray, "n n"]:
    """Return after how many layers, from layer 0 on, each query (row) has heard of each key (column).

    0 for itself; -1 where it never does, and for keys that come later.
    """
    layers = np.full((n, n), -1, dtype=np.int32)
    for n_layers, heard in enumerate(_heard(schedule, n)):
        known = np.unpackbits(heard, axis=1, count=n).astype(bool)
        layers[known & (layers < 0)] = n_layers
    return layers


def _heard(schedule: Schedule, n: int) -> Iterator[Int[np.ndarray, "n bytes"]]:
    """Yield, after 0, 1, 2, ... layers, a bit for every position that each one has heard of; until nothing is new."""
    read_by_layer = [_keys_read(pattern, n) for pattern in schedule.patterns]
    goal = np.packbits(np.tri(n, dtype=bool), axis=1)
    heard = np.packbits(np.eye(n, dtype=bool), axis=1)
    yield heard
    n_layers = last_news = 0
    while unfinished := np.flatnonzero((heard != goal).any(axis=1)).tolist():
        if n_layers - last_news == len(read_by_layer):
            return
        keys = read_by_layer[n_layers % len(read_by_layer)]
        after = heard.copy()
        for q in unfinished:
            after[q] = np.bitwise_or.reduce(heard[keys[q]], axis=0)
        n_layers += 1
        if not np.array_equal(after, heard):
            last_news = n_layers
        heard = after
        yield heard


def _keys_read(pattern: Pattern, n: int) -> list[Int[np.ndarray, " keys"]]:
    """Return for each of `n` positions the keys that any head reads."""
    rows = [np.any([mask(at_head, 1, q + 1, q)[0] for at_head in pattern.for_heads(HEADS)], axis=0) for q in range(n)]
    return [np.flatnonzero(row).astype(np.int32) for row in rows]


def _mask_rows(pattern: Pattern, n: int, head: int) -> Iterator[Bool[np.ndarray, "rows n"]]:
    check(n >= 1, f"a layout needs at least 1 position, got {n}")
    for start in range(0, n, _ROWS):
        yield mask(pattern, min(_ROWS, n - start), n, start, head)
