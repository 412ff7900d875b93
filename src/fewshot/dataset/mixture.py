"""Sources and their weights in, the order of all training rows out, as a pure function of (seed, row number).

Rows come in blocks of 1,000; in each, every source has a fixed number of places, shuffled anew. A source's own rows
are read without replacement until its epoch boundary, then in another order (Brown et al. 2020, Table 2.2 and App. B).
Knows nothing of batches, ranks and steps, hence the order does not depend on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fewshot.base.errors import check
from fewshot.dataset.pack import Packed
from fewshot.dataset.permute import permuted

ROWS_PER_BLOCK = 1000


@dataclass(frozen=True)
class Mixture:
    """Sources that are read together; `weights` are their shares of the rows (so of the tokens), of any sum.

    A share is rounded to a thousandth, but no source with a positive weight gets nothing. Raises `BadValue`.
    """

    sources: tuple[Packed, ...]
    weights: tuple[float, ...]
    seed: int

    def __post_init__(self) -> None:
        n, weights = len(self.sources), self.weights
        check(n > 0, "a mixture needs at least one source")
        check(n == len(weights), f"{n} sources have {len(weights)} weights: give one weight per source")
        check(
            all(math.isfinite(w) and w >= 0 for w in weights) and sum(weights) > 0,
            f"the weights are {weights}: each must be at least 0, and at least one above 0",
        )
        n_read = sum(w > 0 for w in weights)
        check(
            n_read <= ROWS_PER_BLOCK,
            f"{n_read} sources have a positive weight, at most {ROWS_PER_BLOCK:,} can be mixed",
        )
        check(len({source.n_ctx for source in self.sources}) == 1, "the sources are packed for different n_ctx")
        check(
            len({source.shards[0].tokenizer for source in self.sources}) == 1,
            "the sources were made by different tokenizers: prepare them with the same one",
        )

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """How many of each 1,000 rows come from each source: shares rounded by largest remainder."""
        shares = np.array(self.weights) / sum(self.weights) * ROWS_PER_BLOCK
        slots = np.floor(shares).astype(np.int64)
        largest_remainders = np.argsort(slots - shares, kind="stable")
        slots[largest_remainders[: ROWS_PER_BLOCK - slots.sum()]] += 1
        for starved in np.flatnonzero((slots == 0) & (shares > 0)):
            slots[np.argmax(slots)] -= 1
            slots[starved] = 1
        return tuple(slots.tolist())

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the source of each training row, counted from 0, and its row inside that source; both int64 [B]."""
        sources, turns = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.int64)
        blocks, places = np.divmod(rows, ROWS_PER_BLOCK)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            source_at, turn_at = _block(self.seed, block, self.slots)
            sources[here], turns[here] = source_at[places[here]], turn_at[places[here]]
        inside = np.empty(len(rows), dtype=np.int64)
        for source in np.unique(sources).tolist():
            n_rows = self.sources[source].n_rows
            epochs, nth = np.divmod(turns, n_rows)
            for epoch in np.unique(epochs[sources == source]).tolist():
                here = (sources == source) & (epochs == epoch)
                inside[here] = permuted(nth[here], n_rows, self.seed, "epoch", source, epoch)
        return sources, inside


@lru_cache(maxsize=64)
def _block(seed: int, block: int, slots: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the source of each place in a block, and how many rows that source has given before it since row 0."""
    source_at = np.repeat(np.arange(len(slots)), slots)
    source_at = source_at[permuted(np.arange(ROWS_PER_BLOCK), ROWS_PER_BLOCK, seed, "block", block)]
    turn_at = np.empty(ROWS_PER_BLOCK, dtype=np.int64)
    for source, n in enumerate(slots):
        turn_at[source_at == source] = block * n + np.arange(n)
    return source_at, turn_at
