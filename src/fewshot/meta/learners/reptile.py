"""Reptile: weights move towards where gradient descent on each task leads. In: a module, episodes. Out: a pull.

No query set and no second derivatives: support and query examples are one set, of which each inner step takes a
batch. The inner optimizer is Adam without momentum, whose running squares go on from task to task, into the test too:
a task of five steps is too short to find them. Source: Nichol et al. 2018, section 2, and their released code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import vmap

from fewshot.meta.learners.maml import InnerLoop, Loss, Start, Weights, loss_of_weights, states


def pull(
    module: nn.Module,
    start: Start,
    x: Shaped[Tensor, "N M *X"],
    y: Shaped[Tensor, "N M *Y"],
    picks: Int[Tensor, "N S B"],
    loss: Loss,
    inner: InnerLoop,
) -> tuple[Start, Float[Tensor, ""]]:
    """Return (start - mean over tasks of where the inner loop ends, the mean loss there), of M examples, S batches of
    B.

    As the gradient of an outer SGD with step size e it moves the weights by e towards the mean of the tasks' weights.
    The loss is that of the last batch.
    """
    loss_of = loss_of_weights(module, loss)

    def of_one(x: Tensor, y: Tensor, picks: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        *_, (weights, moments) = states(loss_of, start, x, y, inner, picks)
        return weights, moments, loss_of(weights, x[picks[-1]], y[picks[-1]])

    weights, moments, losses = vmap(of_one)(x, y, picks)
    return Start(weights=_ways(start.weights, weights), moments=_ways(start.moments, moments)), losses.mean()


def _ways(begun: Weights, ended: Weights) -> dict[str, Tensor]:
    """From the mean of the tasks' ends back to the common beginning."""
    return {name: tensor - ended[name].mean(0) for name, tensor in begun.items()}


def batches(
    n_tasks: int, n_examples: int, *, n_steps: int, batch: int, generator: torch.Generator
) -> Int[Tensor, "N S B"]:
    """For each task and step the examples to take: whole passes through all of them, each in a new order."""
    n_passes = -(-n_steps * batch // n_examples)
    orders = torch.rand(n_tasks, n_passes, n_examples, generator=generator).argsort(2)
    return orders.flatten(1)[:, : n_steps * batch].unflatten(1, (n_steps, batch))
