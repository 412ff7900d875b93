"""The power law: found where it holds, and as sure of itself as it may be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewshot.base.errors import BadValue
from fewshot.train.ladder.law import fit, floor_of

SIZES = (1e5, 2e5, 4e5, 8e5)


def test_a_law_without_noise_is_found_and_continued() -> None:
    law = fit(SIZES, [2.57 * x**-0.048 for x in SIZES])
    assert law.factor == pytest.approx(2.57)
    assert law.exponent == pytest.approx(-0.048)
    expected = law.expected(1.6e6)
    assert expected.value == pytest.approx(2.57 * 1.6e6**-0.048)
    assert expected.low == pytest.approx(expected.high)


def test_a_law_above_a_floor_is_found_and_its_interval_stays_above() -> None:
    noise = (1.01, 0.98, 1.02, 0.99)
    law = fit(SIZES, [1.5 + 9 * x**-0.2 * error for x, error in zip(SIZES, noise, strict=True)], floor=1.5)
    assert law.exponent == pytest.approx(-0.2, abs=0.01)
    far = law.expected(1e12)
    assert 1.5 < far.low < far.value < far.high
    assert far.value == pytest.approx(1.5 + law.factor * 1e12**law.exponent)


def test_the_floor_is_in_nats_a_token_and_below_every_loss() -> None:
    assert floor_of([4.0, 3.5], [1.6, 1.4]) == pytest.approx(0.6 * 2.5)
    assert floor_of([0.8, 0.5], [0.9, 0.5625]) == pytest.approx(0.25)


def test_the_interval_is_that_of_a_regression_worked_by_hand() -> None:
    """Logarithms 0, 1, 2 and 0, 0, 3: slope 1.5, rest .5, -1, .5, so s = sqrt(1.5) with one degree of freedom."""
    law = fit([1, math.e, math.e**2], [1, 1, math.e**3])
    assert law.exponent == pytest.approx(1.5)
    assert law.deviation == pytest.approx(math.sqrt(1.5))
    half = 12.7062 * math.sqrt(1.5) * math.sqrt(1 + 1 / 3 + 4 / 2)
    expected = law.expected(math.e**3)
    assert math.log(expected.value) == pytest.approx(4.0)
    assert math.log(expected.high / expected.value) == pytest.approx(half)
    assert math.log(expected.value / expected.low) == pytest.approx(half)


def test_95_of_100_intervals_hold_the_next_measurement() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        noise = np.exp(rng.normal(0, 0.004, 5))
        losses = [5 * x**-0.1 * error for x, error in zip((*SIZES, 1.6e6), noise, strict=True)]
        expected = fit(SIZES, losses[:-1]).expected(1.6e6)
        inside += expected.low <= losses[-1] <= expected.high
    assert 0.935 < inside / 2000 < 0.965


@pytest.mark.parametrize("sizes", [(1e5, 2e5), (1e5, 1e5, 2e5)])
def test_a_law_of_fewer_than_three_sizes_is_refused(sizes: tuple[float, ...]) -> None:
    with pytest.raises(BadValue, match="at least 3 points, here are 2"):
        fit(sizes, [5.0] * len(sizes))
