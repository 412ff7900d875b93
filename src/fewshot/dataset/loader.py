"""Rows of a mixture in, batches of tensors out; the only file of this package that knows torch.

A batch depends on the mixture and on `first_row` alone: a run that resumes asks for the row where it stopped.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Batch:
    """Input tokens and the targets to predict, int64 on the CPU."""

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]  # the tokens one place further on
    documents: Int[Tensor, "B T"] | None  # documents that ended before each token in its row; None if not wanted


def load_batch(
    mixture: Mixture, *, first_row: int, n_rows: int, rank: int = 0, world: int = 1, with_documents: bool = False
) -> Batch:
    """Return the training rows first_row to first_row + n_rows - 1, or one rank's share of them.

    Rank r of `world` has every world-th row from the r-th on, so all ranks together read the same rows for any `world`.
    Raises `BadValue` for a rank outside the world or without a row.
    """
    check(first_row >= 0, f"first_row is {first_row}, it must be at least 0")
    check(0 <= rank < world, f"rank is {rank}, it must be at least 0 and below world, {world}")
    check(
        n_rows >= world,
        f"a batch of {n_rows} rows is too small for {world} ranks, each of which needs a row: use larger batches",
    )
    sources, inside = mixture.locate(np.arange(first_row + rank, first_row + n_rows, world))
    rows = np.empty((len(sources), mixture.sources[0].n_ctx + 1), dtype=np.int64)
    for source in np.unique(sources).tolist():
        here = sources == source
        rows[here] = mixture.sources[source].rows(inside[here])
    return _batch(rows, mixture.sources[0].eot if with_documents else None)


def validation_batches(
    packed: Packed, *, n_rows: int, max_rows: int | None = None, with_documents: bool = False
) -> Iterator[Batch]:
    """Yield batches of `n_rows` rows, the last one maybe smaller: every row once, in order, or `max_rows` of them.

    Rows that are chosen are scattered over all the text, and the same each time.
    """
    check(n_rows >= 1, f"n_rows is {n_rows}, a batch has at least 1 row")
    check(max_rows is None or max_rows >= 1, f"max_rows is {max_rows}, it must be at least 1 or None for all rows")
    rows = np.arange(packed.n_rows)
    if max_rows is not None and max_rows < packed.n_rows:
        rows = np.sort(permuted(np.arange(max_rows), packed.n_rows, "validation"))
    eot = packed.eot if with_documents else None
    return (_batch(packed.rows(rows[i : i + n_rows]), eot) for i in range(0, len(rows), n_rows))


def _batch(rows: np.ndarray, eot: int | None) -> Batch:
    """Return rows of n_ctx + 1 tokens as a batch, with document numbers if `eot` is given."""
    tokens = np.ascontiguousarray(rows[:, :-1])
    return Batch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(np.ascontiguousarray(rows[:, 1:])),
        documents=None if eot is None else torch.from_numpy(document_numbers(tokens, eot)),
    )
