"""Token sequences as one prefix tree: what they share at their beginnings is read once. In: sequences. Out: rows.

All sequences follow one common prefix; the branches behind it are spread over the rows of a batch. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fewshot.generate.next_logits import n_common

ROW_TOKENS = 512  # short sequences share a row up to this length, so that little is padding
LEAST_PREFIX = 16  # tokens; a shorter common prefix is not worth a forward pass of its own


@dataclass
class TreeRow:
    """Branches in one row; `parents[i]` is the place of the token before token i, -1 for none, and smaller than i."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_line(self) -> bool:
        """Whether the row is one plain text."""
        return self.parents == list(range(-1, len(self) - 1))

    def depths(self) -> list[int]:
        """Return the number of ancestors of each token."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    def sees(self) -> np.ndarray:
        """Return a matrix [T, T], true where the column's token is an ancestor of the row's token or that token."""
        sees = np.zeros((len(self), len(self)), dtype=bool)
        for at, parent in enumerate(self.parents):
            if parent >= 0:
                sees[at] = sees[parent]
            sees[at, at] = True
        return sees


@dataclass(frozen=True)
class PrefixTree:
    """A common prefix, and rows of branches behind it."""

    prefix: tuple[int, ...]
    rows: list[TreeRow]
    places: list[tuple[int, list[int]]]  # of each sequence: its row, and where its tokens behind the prefix stand


def build_prefix_tree(
    sequences: Sequence[tuple[int, ...]], *, longest_prefix: int, known: tuple[int, ...] = (), branching: bool = True
) -> PrefixTree:
    """Return the prefix tree of the sequences; no more than `longest_prefix` tokens become the common prefix.

    A `known` prefix (whose keys and values are still there) is taken where it is nearly as long. Without `branching`
    every distinct sequence is a row.
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
    rows: list[TreeRow] = []
    places: list[tuple[int, list[int]]] = [(0, [])] * len(sequences)
    previous: tuple[int, ...] = ()
    path: list[int] = []
    for i in order:
        rest = sequences[i][len(prefix) :]
        shared = n_common(previous, rest) if rows else 0
        if not rows or not (_fits(rows[-1], rest, shared) if branching else rest == previous):
            rows.append(TreeRow())
            shared = 0
        row = rows[-1]
        path = path[:shared]
        for token in rest[shared:]:
            row.parents.append(path[-1] if path else -1)
            path.append(len(row))
            row.tokens.append(token)
        places[i] = (len(rows) - 1, path)
        previous = rest
    return PrefixTree(prefix, rows, places)


def _fits(row: TreeRow, rest: Sequence[int], shared: int) -> bool:
    """Return whether the row has room for the sequence: it stays short, or holds most of the sequence already.

    Attention costs a row's length squared, so even then the row is at most twice as long as the sequence.
    """
    longest = max(ROW_TOKENS, 2 * len(rest)) if 2 * shared >= len(rest) else ROW_TOKENS
    return len(row) + len(rest) - shared <= longest
