from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fewshot.base.errors import BadValue, Diverged, UnknownName
from fewshot.meta.curves import Curve, Measured, from_json, over_seeds, point, to_json


def test_a_point_has_students_interval():
    summary = point([1.0, 2.0, 3.0, 4.0, 5.0], n_examples=4, n_steps=2, flops=8.0)
    assert (summary.mean, summary.n, summary.n_examples, summary.n_steps, summary.flops) == (3.0, 5, 4, 2, 8.0)
    assert summary.high - summary.mean == pytest.approx(2.7764 * 2.5**0.5 / 5**0.5, rel=1e-4)
    assert summary.mean - summary.low == pytest.approx(summary.high - summary.mean)


def test_a_learner_that_is_lost_on_a_task_has_no_mean_over_tasks():
    for lost in (math.nan, math.inf):
        with pytest.raises(
            Diverged, match="after 2 gradient steps on 4 examples the figure of 1 of 3 tasks is not a finite number"
        ):
            point([1.0, lost, 3.0], n_examples=4, n_steps=2)


def test_what_was_measured_comes_back_from_json():
    curve = Curve(learner="maml", kind="weights", points=(point([1.0, 2.0], n_examples=1),), training_flops=9.0)
    measured = Measured(
        tasks="sinusoid", quantity="error", curves=(curve,), history={"maml": [{"iteration": 1, "loss": 1.0}]}
    )
    assert from_json(json.loads(json.dumps(to_json(measured))), where="here") == measured


def test_what_is_no_result_is_refused():
    with pytest.raises(BadValue, match=r"here lacks .*curves"):
        from_json({"tasks": "sinusoid"}, where="here")
    with pytest.raises(UnknownName, match="key in here"):
        from_json({"tasks": "a", "quantity": "b", "curves": [], "other": 1}, where="here")
    with pytest.raises(BadValue, match="kind is 'guess'"):
        Curve(learner="maml", kind="guess", points=())


def test_the_interval_of_a_share_stays_within_0_and_1():
    assert point([1.0, 1.0, 0.0], n_examples=1).high > 1
    cut = point([1.0, 1.0, 0.0], n_examples=1, is_share=True)
    assert (cut.low, cut.high, cut.mean) == (0.0, 1.0, pytest.approx(2 / 3))


def of_seed(error: float, right: float) -> Measured:
    curves = (
        Curve(learner="4x48", kind="context", points=(point([error - 1, error + 1], n_examples=3, flops=7.0),)),
        Curve(
            learner="4x48",
            kind="context",
            points=(point([right, right], n_examples=3),),
            quantity="accuracy",
            more_is_better=True,
            n_weights=5,
        ),
    )
    return Measured(tasks="lines", quantity="error", curves=curves)


def test_points_over_seeds_are_means_of_theirs_with_students_interval_over_seeds():
    together = over_seeds([of_seed(2.0, 0.8), of_seed(3.0, 1.0), of_seed(7.0, 0.9)])
    (error,), (right,) = (curve.points for curve in together.curves)
    assert (error.mean, error.n, error.n_examples, error.flops) == (4.0, 3, 3, 7.0)
    assert error.high - 4 == pytest.approx(4.3027 * 7**0.5 / 3**0.5, rel=1e-4)
    assert (right.mean, right.high) == (pytest.approx(0.9), 1.0)  # 0.9 + 4.3 * 0.1 / 1.73 is above 1
    assert together.curves[1].n_weights == 5
    assert [together.judged_by(curve) for curve in together.curves] == [("error", False), ("accuracy", True)]


def test_every_stored_result_is_still_read():
    paths = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("meta_*.json"))
    assert len(paths) >= 10
    for path in paths:
        measured = from_json(json.loads(path.read_text()), where=path.name)
        assert {measured.judged_by(curve) for curve in measured.curves} == {
            (measured.quantity, measured.more_is_better)
        }
