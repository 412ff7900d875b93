from __future__ import annotations

import math

import numpy as np
import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.metrics import accuracy, bootstrap_interval, exact_match, perplexity, wilson_interval


def test_exact_match_reads_the_first_line_without_its_spaces():
    assert exact_match(" 143\nQ: What", (" 143",)) == 1.0
    assert exact_match("\n 143 ", ("x", " 143")) == 1.0
    assert exact_match(" 1433", (" 143",)) == 0.0
    assert exact_match("", (" 143",)) == 0.0


# Reference values: statsmodels.stats.proportion.proportion_confint(method="wilson"), known from its documentation
# of the formula and worked by hand here for 0 of n, where low = 0 and high = z^2 / (n + z^2).
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775328), (5, 10, 0.2365931, 0.7634069), (10, 10, 0.7224672, 1.0), (81, 263, 0.2552689, 0.3662246)],
)
def test_wilson_interval_agrees_with_published_numbers(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_nothing_is_refused():
    with pytest.raises(BadValue, match="no proportion"):
        wilson_interval(0, 0)


def test_perplexity_is_per_unit_over_all_units_not_per_item():
    assert perplexity([-math.log(8), -math.log(2)], [3, 1]) == pytest.approx(2.0)


def test_accuracy_is_a_mean():
    assert accuracy([1.0, 0.0, 0.0, 1.0, 1.0]) == pytest.approx(0.6)


def test_bootstrap_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values.tolist(), seed=1)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert bootstrap_interval(values.tolist(), seed=1) == (low, high)


def test_bootstrap_interval_weighs_items_by_their_units():
    assert bootstrap_interval([2.0, 6.0, 4.0], [1.0, 3.0, 2.0], seed=0) == pytest.approx((2.0, 2.0))
