from __future__ import annotations

import json
import math

import pytest

from fewshot.base.errors import BadValue, Diverged, UnknownName
from fewshot.meta.curves import Curve, Measured, from_json, point, to_json


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
