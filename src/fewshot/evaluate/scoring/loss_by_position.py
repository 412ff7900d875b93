"""Loss by position: how much a model gains from context. In: a language model, rows of text. Out: nats by bin.

A falling curve is in-context learning in its plainest form. Source: Brown et al. 2020, section 1; Kaplan et al. 2020,
figure 20. Knows neither runs nor files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from fewshot.base.errors import check
from fewshot.base.quantiles import Z95
from fewshot.dataset.pack import Packed
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.evaluate.scoring.logprobs import LOGIT_ROWS
from fewshot.model.logprobs import checked_logprobs

BINS_A_DOUBLING = 2
BATCH_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class PositionLoss:
    """Mean loss of the tokens that have `first` to `last` tokens before them, over rows of held-out text."""

    first: int
    last: int
    n: int  # tokens
    nats: float
    low: float  # 95% interval, over rows; nan for a single row
    high: float


def position_bins(n_ctx: int, *, a_doubling: int = BINS_A_DOUBLING) -> list[tuple[int, int]]:
    """Return bins (first, last) of positions from 1 to n_ctx, of equal width on a logarithmic axis."""
    check(n_ctx >= 1, f"n_ctx is {n_ctx}, must be at least 1")
    steps = range(math.ceil(a_doubling * math.log2(n_ctx + 1)) + 1)
    begins = sorted({min(n_ctx + 1, math.ceil(2 ** (step / a_doubling))) for step in steps} | {n_ctx + 1})
    return [(begin, end - 1) for begin, end in pairwise(begins)]


def rows_apart(rows: Packed, *, n_tokens: int) -> Iterator[np.ndarray]:
    """Yield batches of rows at equal distances, `n_tokens` tokens or about that in all, the same each time."""
    n_rows = max(2, n_tokens // rows.n_ctx)
    chosen = np.unique(np.linspace(0, rows.n_rows - 1, n_rows).astype(int))
    for first in range(0, len(chosen), BATCH_ROWS):
        yield rows.rows(chosen[first : first + BATCH_ROWS])


@torch.inference_mode()
def loss_by_position(lm: LanguageModel, batches: Iterable[np.ndarray]) -> list[PositionLoss]:
    """Return the loss in each bin of positions; rows are int64 [B, T + 1], T at most n_ctx, all of the same length."""
    losses = np.concatenate([_losses(lm, torch.from_numpy(rows)) for rows in batches])
    bins = []
    for first, last in position_bins(losses.shape[1]):
        part = losses[:, first - 1 : last].mean(axis=1)
        half = Z95 * part.std(ddof=1) / math.sqrt(len(part)) if len(part) > 1 else math.nan
        mean = float(part.mean())
        n = len(part) * (last - first + 1)
        bins.append(PositionLoss(first=first, last=last, n=n, nats=mean, low=mean - half, high=mean + half))
    return bins


def _losses(lm: LanguageModel, rows: torch.Tensor) -> np.ndarray:
    """Return the loss of each token but the first, [B, T]; logits are held for LOGIT_ROWS positions at a time."""
    check(rows.shape[1] - 1 <= lm.n_ctx, f"rows of {rows.shape[1]:,} tokens, the model reads {lm.n_ctx:,}")
    rows = rows.to(lm.device)
    hidden = lm.read(rows[:, :-1]).flatten(0, 1)
    losses = []
    for states, goals in zip(hidden.split(LOGIT_ROWS), rows[:, 1:].flatten().split(LOGIT_ROWS), strict=True):
        nats = torch.nn.functional.cross_entropy(lm.logits(states).float(), goals, reduction="none")
        losses.append(checked_logprobs(nats))
    return torch.cat(losses).view(len(rows), -1).double().cpu().numpy()
