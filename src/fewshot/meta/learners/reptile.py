"""Reptile: weights move towards where gradient descent on each task ends. In: a module, examples. Out: a gradient.

No query set and no second derivatives: support and query examples are one set, of which each inner step takes a
batch. The inner optimizer is Adam without momentum. Its running squares go on from task to task, into the test too: a
task of five steps is too short to estimate them. Source: Nichol et al. 2018, section 2, and their released code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import vmap

from fewshot.meta.learners.maml import InnerLoop, LossFunction, Start, Weights, inner_states, loss_of_weights


def reptile_gradients(
    module: nn.Module,
    start: Start,
    x: Shaped[Tensor, "N M *X"],
    y: Shaped[Tensor, "N M *Y"],
    picks: Int[Tensor, "N S B"],
    loss: LossFunction,
    inner: InnerLoop,
) -> tuple[Start, Float[Tensor, ""]]:
    """Return (the start minus the mean over tasks of where the inner loop ends, the mean loss there).

    As the gradient of an outer SGD with step size e, the difference moves the weights by e towards the mean of the
    tasks' weights. A task has M examples, its inner loop S batches of B. The loss is that of the last batch.
    """
    loss_of = loss_of_weights(module, loss)

    def inner_end(x: Tensor, y: Tensor, picks: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        *_, (weights, moments) = inner_states(loss_of, start, x, y, inner, picks)
        return weights, moments, loss_of(weights, x[picks[-1]], y[picks[-1]])

    weights, moments, losses = vmap(inner_end)(x, y, picks)
    return Start(
        weights=_differences(start.weights, weights), moments=_differences(start.moments, moments)
    ), losses.mean()


def _differences(start: Weights, ends: Weights) -> dict[str, Tensor]:
    """Return the common start minus the mean of the tasks' ends."""
    return {name: tensor - ends[name].mean(0) for name, tensor in start.items()}


def batches(
    n_tasks: int, n_examples: int, *, n_steps: int, batch: int, generator: torch.Generator
) -> Int[Tensor, "N S B"]:
    """Return the indices of examples for each task and step: all examples in a new order, again and again."""
    n_passes = -(-n_steps * batch // n_examples)
    orders = torch.rand(n_tasks, n_passes, n_examples, generator=generator).argsort(2)
    return orders.flatten(1)[:, : n_steps * batch].unflatten(1, (n_steps, batch))
