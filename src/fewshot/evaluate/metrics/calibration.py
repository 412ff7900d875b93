"""Whether a model is as sure of its choices as it is right. In: answers. Out: a metric. Knows no task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fewshot.base.errors import check
from fewshot.evaluate.answer import Answer, Normalisation
from fewshot.evaluate.metrics.metric import Metric

N_BINS = 10  # of confidence


def calibration_error(normalisation: Normalisation = "token", *, n_bins: int = N_BINS) -> Metric:
    """Return the expected calibration error of choices, over bins of confidence.

    It is |confidence - accuracy| of each bin, weighted by the bin's share of the answers. Confidence is the largest of
    the softmax over the completions' normalised scores. Source: Guo et al. 2017, section 2; of language models'
    choices, Zhao et al. 2021.
    """
    check(n_bins >= 1, f"n_bins is {n_bins}, must be at least 1")

    def surplus(group: Sequence[Answer]) -> list[float]:
        """Return confidence less accuracy by bin, and the count: sums of these give the error of any questions."""
        sums = [0.0] * n_bins
        for answer in group:
            confidence = _confidence(answer.normalised(normalisation))
            right = answer.example.is_right(answer.choice(normalisation))
            sums[min(int(confidence * n_bins), n_bins - 1)] += confidence - right
        return [*sums, float(len(group))]

    return Metric(
        "calibration_error",
        surplus,
        lambda sums: sum(map(abs, sums[:-1])) / sums[-1],
        normalisation=normalisation,
    )


def _confidence(scores: Sequence[float]) -> float:
    """Return the largest probability of the softmax over scores."""
    best = max(scores)
    return 1 / sum(math.exp(score - best) for score in scores)
