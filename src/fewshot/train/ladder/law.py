"""A power law through the losses of several sizes, and what it says of another size. In: numbers. Out: numbers.

Kaplan et al. 2020 and figure 3.1 of Brown et al. 2020 draw loss as a straight line over size or compute, both
logarithmic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.base.errors import check
from fewshot.base.quantiles import student95


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A value with its 95% interval, which one more measurement falls into."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """The law y = factor * x ** exponent; `deviation` is that of the points from it, as a share of y."""

    factor: float
    exponent: float
    deviation: float
    xs: tuple[float, ...]  # what it was fitted to

    def expected(self, x: float) -> Expected:
        """Return y at `x`, with the interval of one more point there by Student's t."""
        log_xs, n = np.log(self.xs), len(self.xs)
        away = math.log(x) - float(log_xs.mean())
        spread = math.sqrt(1 + 1 / n + away**2 / float(((log_xs - log_xs.mean()) ** 2).sum()))
        value, half = self.factor * x**self.exponent, student95(n - 2) * self.deviation * spread
        return Expected(value=value, low=value * math.exp(-half), high=value * math.exp(half))


def fit(xs: Sequence[float], ys: Sequence[float]) -> PowerLaw:
    """Return the power law through three points or more, by least squares of the logarithms."""
    check(len(set(xs)) >= 3, f"a law of two numbers needs at least 3 points, here are {len(set(xs))}")
    log_xs, log_ys = np.log(xs), np.log(ys)
    exponent, log_factor = np.polyfit(log_xs, log_ys, 1)
    left = log_ys - (log_factor + exponent * log_xs)
    return PowerLaw(
        factor=math.exp(log_factor),
        exponent=float(exponent),
        deviation=math.sqrt(float((left**2).sum()) / (len(xs) - 2)),
        xs=tuple(xs),
    )
