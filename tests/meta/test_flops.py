from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn.functional import mse_loss

from fewshot.meta.episodes import Sinusoids
from fewshot.meta.flops import flops_of, training_flops
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterLoss


def test_flops_of_a_backward_pass_are_counted():
    network, x = nn.Linear(3, 5), torch.ones(7, 3)
    assert flops_of(lambda: network(x)) == 2 * 7 * 3 * 5
    assert flops_of(lambda: mse_loss(network(x), torch.zeros(7, 5)).backward()) == 2 * 2 * 7 * 3 * 5


def test_attention_counts_among_the_flops_as_two_products_of_all_queries_and_keys():
    q = torch.randn(2, 3, 5, 4)
    attend = partial(torch.nn.functional.scaled_dot_product_attention, q, q, q, is_causal=True)
    assert flops_of(attend) == 2 * (2 * 2 * 3 * 5 * 5 * 4)


def test_an_outer_loop_costs_its_iterations_forward_and_backward():
    weight, x = torch.ones(3, 2, requires_grad=True), torch.ones(7, 3)
    product = 2 * 7 * 3 * 2
    assert training_flops(lambda generator, done: OuterLoss((x @ weight).sum()), n_iterations=5) == 5 * 2 * product
    network = perceptron(1, (6,), 1, seed=0)
    learner = WeightLearner(network, Sinusoids(), mse_loss, LearnerConfig(n_tasks=2, n_support=3, n_query=4))
    once = training_flops(learner.step, n_iterations=1)
    assert once == training_flops(learner.step, n_iterations=1) > 0  # the first call traced its function
