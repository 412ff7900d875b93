"""Reptile: weights move towards where gradient descent on each task leads. In: a module, episodes. Out: a pull.

No query set and no second derivatives: support and query examples are one set, of which each inner step takes a
batch. Source: Nichol et al. 2018, section 2, and their released code (Adam without momentum as the inner optimizer).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fewshot.meta.episodes import Episodes
from fewshot.meta.maml import InnerLoop, Loss, Start, Weights, adapt


def pull(
    module: nn.Module,
    start: Start,
    episodes: Episodes,
    loss: Loss,
    inner: InnerLoop,
    *,
    n_steps: int,
    batch: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(a scalar whose gradient is weights - mean weights after the inner loop, the mean loss there).

    So an outer SGD with step size e moves the weights by e towards the mean of the tasks' weights.
    """
    x = torch.cat([episodes.support_x, episodes.query_x], 1)
    y = torch.cat([episodes.support_y, episodes.query_y], 1)
    picks = batches(len(x), x.shape[1], n_steps=n_steps, batch=batch, generator=generator)

    def loss_of(own: Weights, x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(module, dict(own), (x,)), y)

    def of_one(x: Tensor, y: Tensor, picks: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        *_, end = adapt(loss_of, start.detached(), x, y, inner, picks)
        return end, loss_of(end, x, y)

    with torch.no_grad():
        ends, losses = vmap(of_one)(x, y, picks)
    pulls = [((w.detach() - ends[name].mean(0)) * w).sum() for name, w in start.weights.items()]
    return torch.stack(pulls).sum(), losses.mean()


def batches(
    n_tasks: int, n_examples: int, *, n_steps: int, batch: int, generator: torch.Generator
) -> Int[Tensor, "N S B"]:
    """For each task and step the examples to take: whole passes through all of them, each in a new order."""
    n_passes = -(-n_steps * batch // n_examples)
    orders = torch.rand(n_tasks, n_passes, n_examples, generator=generator).argsort(2)
    return orders.flatten(1)[:, : n_steps * batch].unflatten(1, (n_steps, batch))
