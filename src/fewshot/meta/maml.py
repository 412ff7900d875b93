"""Model-agnostic meta-learning on `torch.func`, all tasks of a batch at once. In: a module, episodes. Out: gradients.

The inner loop takes gradient steps on a task's support set, the outer loss is that of the adapted weights on its query
set. Exact second order, first order (inner gradients count as constants), ANIL (the inner loop moves some weights only)
and learned step sizes (Meta-SGD) are one function with other settings. Works with any `nn.Module`.
Source: Finn et al. 2017; Raghu et al. 2020 (ANIL); Li et al. 2017 (Meta-SGD).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fewshot.base.errors import check
from fewshot.meta.episodes import Episodes

Weights = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]  # predictions, targets -> mean over the examples


@dataclass(frozen=True, kw_only=True)
class InnerLoop:
    """How a task is learned: gradient steps, always on the same support set."""

    n_steps: int
    step_size: float = 0.01  # used where none is learned
    second_order: bool = True  # whether the outer gradient flows through the inner gradients
    adapts: str = ""  # only weights whose names begin so; "" for all (ANIL: the head)

    def __post_init__(self) -> None:
        check(self.n_steps >= 0, f"n_steps is {self.n_steps}, must be at least 0")
        check(self.step_size > 0, f"step_size is {self.step_size}, must be above 0")


def adapt(
    loss_of: Callable[[Weights, Tensor, Tensor], Tensor],
    weights: Weights,
    x: Float[Tensor, "K ..."],
    y: Float[Tensor, "K ..."],
    inner: InnerLoop,
    step_sizes: Weights | None = None,
) -> dict[str, Tensor]:
    """The weights after the inner loop on one task's support set.

    `step_sizes` holds a learned one, of any shape that fits, for each weight. Raises BadValue if nothing is adapted.
    """
    moving = {name: weight for name, weight in weights.items() if name.startswith(inner.adapts)}
    resting = {name: weight for name, weight in weights.items() if name not in moving}
    check(bool(moving), f"no weight's name begins with {inner.adapts!r}; there are {', '.join(weights)}")
    for _ in range(inner.n_steps):
        slopes = grad(lambda part: loss_of({**resting, **part}, x, y))(moving)
        if not inner.second_order:
            slopes = {name: slope.detach() for name, slope in slopes.items()}
        sizes: Mapping[str, Tensor | float] = step_sizes or dict.fromkeys(moving, inner.step_size)
        moving = {name: weight - sizes[name] * slopes[name] for name, weight in moving.items()}
    return {**resting, **moving}


def query_losses(
    module: nn.Module,
    weights: Weights,
    episodes: Episodes,
    loss: Loss,
    inner: InnerLoop,
    step_sizes: Weights | None = None,
) -> Float[Tensor, " N"]:
    """Of each task the loss on its query set after its inner loop; differentiable in `weights` and `step_sizes`."""

    def loss_of(own: Weights, x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(module, dict(own), (x,)), y)

    def of_one(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        return loss_of(adapt(loss_of, weights, support_x, support_y, inner, step_sizes), query_x, query_y)

    return vmap(of_one)(episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y)


def outer_gradients(
    module: nn.Module, episodes: Episodes, loss: Loss, inner: InnerLoop
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The mean query loss over tasks, and its gradient with respect to the module's initial weights."""
    weights = dict(module.named_parameters())
    mean = query_losses(module, weights, episodes, loss, inner).mean()
    slopes = torch.autograd.grad(mean, list(weights.values()))
    return mean.detach(), dict(zip(weights, slopes, strict=True))
