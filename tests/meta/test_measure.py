from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadValue, UnknownName
from fewshot.meta.measure import Curve, Measured, flops_of, from_json, point, to_json


def test_a_point_has_students_interval():
    one = point([1.0, 2.0, 3.0, 4.0, 5.0], n_examples=4, n_steps=2, flops=8.0)
    assert (one.mean, one.n, one.n_examples, one.n_steps, one.flops) == (3.0, 5, 4, 2, 8.0)
    assert one.high - one.mean == pytest.approx(2.7764 * 2.5**0.5 / 5**0.5, rel=1e-4)
    assert one.mean - one.low == pytest.approx(one.high - one.mean)


def test_flops_of_a_backward_pass_are_counted():
    network, x = nn.Linear(3, 5), torch.ones(7, 3)
    assert flops_of(lambda: network(x)) == 2 * 7 * 3 * 5
    assert flops_of(lambda: mse_loss(network(x), torch.zeros(7, 5)).backward()) == 2 * 2 * 7 * 3 * 5


def test_what_was_measured_comes_back_from_json():
    curve = Curve(learner="maml", kind="weights", points=(point([1.0, 2.0], n_examples=1),), training_flops=9.0)
    measured = Measured(tasks="sinusoid", quantity="error", curves=(curve,), history={"maml": [{"loss": 1.0}]})
    assert from_json(json.loads(json.dumps(to_json(measured))), where="here") == measured


def test_what_is_no_result_is_refused():
    with pytest.raises(BadValue, match=r"here lacks .*curves"):
        from_json({"tasks": "sinusoid"}, where="here")
    with pytest.raises(UnknownName, match="key in here"):
        from_json({"tasks": "a", "quantity": "b", "curves": [], "other": 1}, where="here")
    with pytest.raises(BadValue, match="kind is 'guess'"):
        Curve(learner="maml", kind="guess", points=())
