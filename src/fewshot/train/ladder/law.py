"""A power law through the losses of several sizes, and what it says of another size. In: numbers. Out: numbers.

Kaplan et al. 2020 and figure 3.1 of Brown et al. 2020 draw loss as a straight line over size or compute, both
logarithmic. No line ends at zero: below is what cannot be predicted of text at all (Hoffmann et al. 2022). Three or
four sizes cannot tell it, so it is taken from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.base.errors import check
from fewshot.base.quantiles import student95

# Bits a byte that no model can predict: Shannon 1951, the lower bound for English. The 1.69 nats a token of Hoffmann et
# al. 2022 are about as much.
IRREDUCIBLE_BITS = 0.6


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A value with its 95% interval, which one more measurement falls into."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """The law y = floor + factor * x ** exponent; `deviation` is that of points from it, as a share of y - floor."""

    floor: float
    factor: float
    exponent: float
    deviation: float
    xs: tuple[float, ...]  # what it was fitted to

    def expected(self, x: float) -> Expected:
        """Return y at `x`, with the interval of one more point there by Student's t."""
        log_xs, n = np.log(self.xs), len(self.xs)
        away = math.log(x) - float(log_xs.mean())
        spread = math.sqrt(1 + 1 / n + away**2 / float(((log_xs - log_xs.mean()) ** 2).sum()))
        above, half = self.factor * x**self.exponent, student95(n - 2) * self.deviation * spread
        low, high = above * math.exp(-half), above * math.exp(half)
        return Expected(value=self.floor + above, low=self.floor + low, high=self.floor + high)


def floor_of(losses: Sequence[float], bits_per_byte: Sequence[float]) -> float:
    """Return what no model can predict of a text, in nats a token, from the losses of models in both units.

    At most half of the lowest loss, for text that is easier than English.
    """
    nats_per_bit = losses[0] / bits_per_byte[0]
    return min(IRREDUCIBLE_BITS * nats_per_bit, 0.5 * min(losses))


def fit(xs: Sequence[float], ys: Sequence[float], *, floor: float = 0.0) -> PowerLaw:
    """Return the power law above `floor` through three points or more, by least squares of the logarithms."""
    check(len(set(xs)) >= 3, f"a law of two numbers needs at least 3 points, here are {len(set(xs))}")
    log_xs, log_ys = np.log(xs), np.log(np.asarray(ys) - floor)
    exponent, log_factor = np.polyfit(log_xs, log_ys, 1)
    left = log_ys - (log_factor + exponent * log_xs)
    return PowerLaw(
        floor=floor,
        factor=math.exp(log_factor),
        exponent=float(exponent),
        deviation=math.sqrt(float((left**2).sum()) / (len(xs) - 2)),
        xs=tuple(xs),
    )
