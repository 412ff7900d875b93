"""Many token sequences as few: what they share at their beginnings is there once. In: sequences. Out: rows of a batch.

All sequences follow one common prefix. Behind it each row is a forest of token tries. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fewshot.generate.steps import n_common

ROW_TOKENS = 512  # a row takes more sequences up to here: small ones fill it, so that few are padded
LEAST_PREFIX = 16  # tokens that are worth a reading of their own


@dataclass
class Row:
    """Tokens of a forest; `parents[i]` is the place of the token before i, -1 for none, and always smaller than i."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_line(self) -> bool:
        """Whether it is one plain text."""
        return self.parents == list(range(-1, len(self) - 1))

    def depths(self) -> list[int]:
        """Return how many ancestors each token has."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    def sees(self) -> np.ndarray:
        """Return [T, T], true where column is an ancestor of row or the row itself."""
        sees = np.zeros((len(self), len(self)), dtype=bool)
        for at, parent in enumerate(self.parents):
            if parent >= 0:
                sees[at] = sees[parent]
            sees[at, at] = True
        return sees


@dataclass(frozen=True)
class Forest:
    """`places[i]` is the row of sequence i and the places of its tokens behind the prefix."""

    prefix: tuple[int, ...]
    rows: list[Row]
    places: list[tuple[int, list[int]]]


def plant(
    sequences: Sequence[tuple[int, ...]], *, longest_prefix: int, known: tuple[int, ...] = (), branching: bool = True
) -> Forest:
    """Return the sequences as rows; no more than `longest_prefix` tokens become the common prefix.

    A prefix that is `known` (read before) is taken where it is nearly as long. Without `branching` every distinct
    sequence is a row.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    prefix: tuple[int, ...] = ()
    if branching and len(order) > 1:
        first, last = sequences[order[0]], sequences[order[-1]]
        prefix = first[: min(n_common(first, last), longest_prefix)]
        if known and prefix[: len(known)] == known and 10 * len(known) >= 9 * len(prefix):
            prefix = known
        if len(prefix) < LEAST_PREFIX:
            prefix = ()
    rows: list[Row] = []
    places: list[tuple[int, list[int]]] = [(0, [])] * len(sequences)
    before: tuple[int, ...] = ()
    path: list[int] = []
    for i in order:
        rest = sequences[i][len(prefix) :]
        shared = n_common(before, rest) if rows else 0
        if not rows or not (_fits(rows[-1], rest, shared) if branching else rest == before):
            rows.append(Row())
            shared = 0
        row = rows[-1]
        path = path[:shared]
        for token in rest[shared:]:
            row.parents.append(path[-1] if path else -1)
            path.append(len(row))
            row.tokens.append(token)
        places[i] = (len(rows) - 1, path)
        before = rest
    return Forest(prefix, rows, places)


def _fits(row: Row, rest: Sequence[int], shared: int) -> bool:
    """Return whether the row takes the sequence too: it stays small, or most of the sequence is there already.

    A row costs its length squared, so even then it is at most twice as long as what it holds.
    """
    longest = max(ROW_TOKENS, 2 * len(rest)) if 2 * shared >= len(rest) else ROW_TOKENS
    return len(row) + len(rest) - shared <= longest
