from __future__ import annotations

import pytest

from fewshot.bench.meta import measure


def test_all_ways_give_the_same_gradients_and_the_ratios_are_those_of_their_speeds():
    result = measure(rounds=1, compiled=False)
    assert [row["n_inner_steps"] for row in result["rows"]] == [1, 5]
    for row in result["rows"]:
        assert row["largest_difference"] < 1e-4
        assert row["ratio"] == pytest.approx(row["program_per_second"] / row["loop_per_second"])
        assert row["vmap_ratio"] == pytest.approx(row["vmap_per_second"] / row["loop_per_second"])
