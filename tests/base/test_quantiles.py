"""Quantiles against the published tables."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fewshot.base.quantiles import student95


def test_students_quantiles_are_those_of_the_tables_and_fall_to_the_normal_one() -> None:
    for degrees, published in ((10, 2.2281), (15, 2.1314), (30, 2.0423), (120, 1.9799)):
        assert student95(degrees) == pytest.approx(published, abs=1e-3)
    quantiles = [student95(degrees) for degrees in range(1, 200)]
    assert all(a > b > 1.96 - 1e-4 for a, b in pairwise(quantiles))
