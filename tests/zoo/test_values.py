"""Paths lead to one value, or to why there is none."""

from __future__ import annotations

import pytest

from fewshot.base.errors import BadValue
from fewshot.zoo.values import NotReached, Value, value_at

POINTS = [
    {"n_examples": 0, "mean": 1.0, "low": 0.9, "high": 1.1},
    {"n_examples": 10, "mean": 0.2, "low": 0.1, "high": 0.3},
]
RESULTS = {
    "few": {
        "curves": [
            {"learner": "context, mean", "tasks": "known", "points": POINTS},
            {"learner": "context, mean", "tasks": "fresh", "points": POINTS[:1]},
        ],
        "history": {
            "context_0": [{"iteration": 10, "new": 0.5}, {"iteration": 20, "new": 0.9}, {"iteration": 30, "new": 0.95}],
            "context_1": [{"iteration": 10, "new": 0.2}, {"iteration": 20, "new": 0.3}, {"iteration": 30, "new": 0.92}],
            "maml_0": [],
        },
        "n": 3,
        "is_done": True,
    }
}


def test_a_mean_has_its_own_interval() -> None:
    path = "few.curves[learner=context, mean, tasks=known].points[n_examples=10]"
    assert value_at(RESULTS, path) == Value(0.2, 0.1, 0.3, (0.2,))
    assert value_at(RESULTS, f"{path}.mean") == Value(0.2, values=(0.2,))
    assert value_at(RESULTS, "few.n").mean == 3


def test_several_values_give_their_mean_and_students_interval() -> None:
    value = value_at(RESULTS, "few.history.context_*[iteration=10].new")
    assert value.values == (0.5, 0.2)
    half = 12.706204736 * 0.15  # Student's t of 1 degree, times deviation / sqrt(2)
    assert value.low is not None
    assert value.high is not None
    assert (value.mean, value.low, value.high) == pytest.approx((0.35, 0.35 - half, 0.35 + half))


def test_the_first_row_that_is_high_enough_is_taken() -> None:
    assert value_at(RESULTS, "few.history.context_*[new>=0.9].iteration").values == (20, 30)
    assert value_at(RESULTS, "few.history.context_0[new<=0.9, iteration>=15].iteration").mean == 20
    with pytest.raises(NotReached, match=r"new is never >= 0.93"):
        value_at(RESULTS, "few.history.context_*[new>=0.93].iteration")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.n", "there is no 'none', allowed: few"),
        ("few.x*", "there is no 'x\\*', allowed: curves, history, is_done, n"),
        ("few.curves[learner=maml].points", "no row has learner maml, there are 'context, mean'"),
        ("few.curves[name=maml].points", "no row has 'name', allowed: learner, points, tasks"),
        ("few.curves[learner=context, mean].points", "fits 2 rows: add another key=value"),
        ("few.curves[0].points", "must be key=value"),
        ("few.n[a=b]", "is asked of 3, which is no list"),
        ("few.n.x", "'x' is asked of 3, which has no names"),
        ("few.is_done", "leads to True, a number"),
        ("few.history", "a number or a mean with its interval is needed"),
        ("few.curves[learner", "is not understood at '\\[learner'"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(path: str, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        value_at(RESULTS, path)
