from __future__ import annotations

import pytest

from fewshot.bench.meta import measure


def test_both_ways_give_the_same_gradients_and_the_ratio_is_that_of_their_speeds():
    result = measure(rounds=1)
    assert [row["n_inner_steps"] for row in result["rows"]] == [1, 5]
    for row in result["rows"]:
        assert row["largest_difference"] < 1e-4
        assert row["ratio"] == pytest.approx(row["ours_per_second"] / row["loop_per_second"])
