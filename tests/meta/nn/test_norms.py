"""Norms in plain operations: torch's values, and exact gradients of gradients for many tasks at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.maml import InnerLoop, query_losses, start_of
from fewshot.meta.nn.norms import PlainNorms


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    norms = {
        "layer": nn.LayerNorm(6),
        "batch": nn.BatchNorm1d(6, track_running_stats=False),
        "instance": nn.Sequential(nn.Unflatten(-1, (2, 3)), nn.InstanceNorm1d(2, affine=True), nn.Flatten()),
        "group": nn.GroupNorm(2, 6),
    }
    made = {
        name: nn.Sequential(nn.Linear(4, 6), norm, nn.Tanh(), nn.Linear(6, 2)).double() for name, norm in norms.items()
    }
    for network in made.values():
        for weight in network.parameters():
            nn.init.normal_(weight)
    return made


def episodes() -> Episodes:
    x = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Episodes(x[:, :5], x[:, :5, :2].sin(), x[:, 5:], x[:, 5:, :2].sin())


@pytest.mark.parametrize("norm", ["layer", "batch", "instance", "group"])
def test_second_order_for_many_tasks_at_once_is_that_of_autograd_task_by_task(norm):
    """With torch's layer, batch and instance norm it is not (pytorch/functorch issue 534)."""
    network, given = networks()[norm], episodes()
    start = start_of(network)
    together = query_losses(network, start, given, mse_loss, InnerLoop(step_size=0.1), after=[2]).mean()
    gradients_together = torch.autograd.grad(together, list(start.weights.values()))
    losses = []
    for i in range(len(given)):
        own = dict(start.weights)
        for _ in range(2):
            loss = mse_loss(functional_call(network, own, (given.support_x[i],)), given.support_y[i])
            gradients = torch.autograd.grad(loss, list(own.values()), create_graph=True)
            own = {name: w - 0.1 * gradient for (name, w), gradient in zip(own.items(), gradients, strict=True)}
        losses.append(mse_loss(functional_call(network, own, (given.query_x[i],)), given.query_y[i]))
    wanted = torch.autograd.grad(torch.stack(losses).mean(), list(start.weights.values()))
    for name, ours, theirs in zip(start.weights, gradients_together, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_values_are_torchs():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 4, 5, 2), torch.randn(4), torch.randn(4)
    last = torch.randn(5, 2), torch.randn(5, 2)

    def values() -> list[torch.Tensor]:
        mean, variance = torch.zeros(4), torch.ones(4)
        return [
            F.layer_norm(x, (5, 2), *last),
            F.layer_norm(x, (2,), eps=0.1),
            F.batch_norm(x, None, None, weight, bias, training=True, eps=0.1),
            F.batch_norm(x, mean, variance, weight, bias, training=True),
            F.batch_norm(x, mean, variance, weight, bias),
            F.instance_norm(x, weight=weight, bias=bias, eps=0.1),
            F.instance_norm(x, mean, variance, weight, bias, use_input_stats=False),
        ]

    wanted = values()
    with PlainNorms():
        plain = values()
    for ours, theirs in zip(plain, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
