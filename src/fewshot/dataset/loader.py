"""Rows of a mixture in, batches of tensors out; the only file of this package that knows torch.

A batch depends on the mixture and on `first_row` alone: a run that resumes asks for the row where it stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fewshot.base.errors import check
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed, document_numbers
from fewshot.dataset.permute import permuted

IGNORED = -1  # the target of a place that does not count


@dataclass(frozen=True, eq=False)
class Batch:
    """Input tokens and the targets to predict, int64 on the CPU."""

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]  # the tokens one place further on
    documents: Int[Tensor, "B T"] | None  # documents that ended before each token in its row; None if not wanted
    first_row: int = 0  # the number of the first row in the mixture


def load_batch(
    mixture: Mixture, *, first_row: int, n_rows: int, padded_to: int | None = None, with_documents: bool = False
) -> Batch:
    """Return the training rows first_row to first_row + n_rows - 1.

    Then come rows whose targets are all -1, which count nothing, until there are `padded_to`: batches of one shape are
    compiled once. `n_rows` may be 0, for a process that has nothing to do in the last part of a batch.
    """
    check(first_row >= 0 <= n_rows, f"first_row is {first_row} and n_rows {n_rows}: both must be at least 0")
    sources, inside = mixture.locate(np.arange(first_row, first_row + n_rows))
    rows = np.zeros((max(n_rows, padded_to or 0), mixture.sources[0].n_ctx + 1), dtype=np.int64)
    for source in np.unique(sources).tolist():
        here = np.flatnonzero(sources == source)
        rows[here] = mixture.sources[source].rows(inside[here])
    batch = _batch(rows, mixture.sources[0].eot if with_documents else None)
    batch.targets[n_rows:] = IGNORED
    return dataclasses.replace(batch, first_row=first_row)


class ValidationBatches:
    """Batches of `n_rows` rows: every row of `packed` once, in order, or `max_rows` of them.

    Rows that are chosen are scattered over all the text, and the same each time. The last batch is padded as
    `load_batch` pads, and so are those beyond it.
    """

    def __init__(
        self, packed: Packed, *, n_rows: int, max_rows: int | None = None, with_documents: bool = False
    ) -> None:
        check(n_rows >= 1, f"n_rows is {n_rows}, a batch has at least 1 row")
        check(max_rows is None or max_rows >= 1, f"max_rows is {max_rows}, it must be at least 1 or None for all rows")
        self._packed, self._n_rows = packed, n_rows
        self._eot = packed.eot if with_documents else None
        self._rows = np.arange(packed.n_rows)
        if max_rows is not None and max_rows < packed.n_rows:
            self._rows = np.sort(permuted(np.arange(max_rows), packed.n_rows, "validation"))

    @property
    def n_targets(self) -> int:
        """How many tokens all batches predict."""
        return len(self._rows) * self._packed.n_ctx

    def __len__(self) -> int:
        return -(-len(self._rows) // self._n_rows)

    def __getitem__(self, number: int) -> Batch:
        rows = self._rows[number * self._n_rows : (number + 1) * self._n_rows]
        tokens = np.zeros((self._n_rows, self._packed.n_ctx + 1), dtype=np.int64)
        if len(rows):
            tokens[: len(rows)] = self._packed.rows(rows)
        batch = _batch(tokens, self._eot)
        batch.targets[len(rows) :] = IGNORED
        return batch

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(len(self)))


def _batch(rows: np.ndarray, eot: int | None) -> Batch:
    """Return rows of n_ctx + 1 tokens as a batch, with document numbers if `eot` is given."""
    tokens, targets = rows[:, :-1].copy(), rows[:, 1:].copy()  # of a single row both would be views of the same memory
    return Batch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        documents=None if eot is None else torch.from_numpy(document_numbers(tokens, eot)),
    )
