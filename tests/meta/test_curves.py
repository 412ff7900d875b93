from __future__ import annotations

import json
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadValue, Diverged, UnknownName
from fewshot.meta.curves import Curve, Measured, flops_of, from_json, point, to_json, training_flops
from fewshot.meta.episodes import Sinusoids
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import Loss


def test_a_point_has_students_interval():
    one = point([1.0, 2.0, 3.0, 4.0, 5.0], n_examples=4, n_steps=2, flops=8.0)
    assert (one.mean, one.n, one.n_examples, one.n_steps, one.flops) == (3.0, 5, 4, 2, 8.0)
    assert one.high - one.mean == pytest.approx(2.7764 * 2.5**0.5 / 5**0.5, rel=1e-4)
    assert one.mean - one.low == pytest.approx(one.high - one.mean)


def test_a_learner_that_is_lost_on_a_task_has_no_mean_over_tasks():
    for lost in (math.nan, math.inf):
        with pytest.raises(
            Diverged, match="after 2 gradient steps on 4 examples the figure of 1 of 3 tasks is no number"
        ):
            point([1.0, lost, 3.0], n_examples=4, n_steps=2)


def test_flops_of_a_backward_pass_are_counted():
    network, x = nn.Linear(3, 5), torch.ones(7, 3)
    assert flops_of(lambda: network(x)) == 2 * 7 * 3 * 5
    assert flops_of(lambda: mse_loss(network(x), torch.zeros(7, 5)).backward()) == 2 * 2 * 7 * 3 * 5


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


def test_attention_counts_among_the_flops_as_two_products_of_all_queries_and_keys():
    q = torch.randn(2, 3, 5, 4)
    work = partial(torch.nn.functional.scaled_dot_product_attention, q, q, q, is_causal=True)
    assert flops_of(work) == 2 * (2 * 2 * 3 * 5 * 5 * 4)


def test_an_outer_loop_costs_its_iterations_forward_and_backward():
    weight, x = torch.ones(3, 2, requires_grad=True), torch.ones(7, 3)
    product = 2 * 7 * 3 * 2
    assert training_flops(lambda generator, done: Loss((x @ weight).sum()), n_iterations=5) == 5 * 2 * product
    network = perceptron(1, (6,), 1, seed=0)
    learner = WeightLearner(network, Sinusoids(), mse_loss, LearnerConfig(n_tasks=2, n_support=3, n_query=4))
    once = training_flops(learner.step, n_iterations=1)
    assert once == training_flops(learner.step, n_iterations=1) > 0  # the first call traced a program
