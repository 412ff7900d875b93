"""Measures of answers and how sure they are. In: plain numbers and strings. Out: floats. Knows no task and no model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fewshot.base.errors import check
from fewshot.base.rng import numpy_rng

Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1.0 if the answer's first line is one of the accepted answers, spaces at both ends aside; else 0.0."""
    first_line = answer.strip().partition("\n")[0].strip()
    return float(any(first_line == one.strip() for one in accepted))


def accuracy(right: Sequence[float]) -> float:
    """Share of right answers."""
    check(len(right) > 0, "accuracy needs at least one answer")
    return sum(right) / len(right)


def perplexity(logprobs: Sequence[float], counts: Sequence[int]) -> float:
    """Exp of the mean nats per unit; `logprobs` are sums in nats, `counts` their tokens (or words)."""
    check(sum(counts) > 0, "perplexity needs at least one token")
    return math.exp(-sum(logprobs) / sum(counts))


def wilson_interval(n_right: float, n: int) -> tuple[float, float]:
    """95% interval (low, high) of a proportion; sound near 0 and 1. Source: Wilson 1927."""
    check(0 <= n_right <= n and n > 0, f"{n_right} right of {n} is no proportion")
    share, z2 = n_right / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int, n_resamples: int = 1000
) -> tuple[float, float]:
    """95% interval (low, high) of sum(values) / sum(weights) over resampled items; weights default to 1, a mean."""
    check(len(values) > 0, "a bootstrap needs at least one value")
    top = np.asarray(values, dtype=np.float64)
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, dtype=np.float64)
    rng = numpy_rng("bootstrap", seed)
    ratios = np.empty(n_resamples)
    for i in range(n_resamples):
        drawn = rng.integers(len(top), size=len(top))
        ratios[i] = top[drawn].sum() / bottom[drawn].sum()
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
