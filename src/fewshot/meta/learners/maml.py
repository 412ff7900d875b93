"""Model-agnostic meta-learning on `torch.func`, all tasks of a batch at once. In: a module, episodes. Out: losses.

The inner loop takes gradient steps on a task's support set, the outer loss is that of the adapted weights on its query
set. Exact second order, first order (inner gradients count as constants), ANIL (the inner loop moves some weights
only), learned step sizes (Meta-SGD, MAML++) and weights with a value for each step (MAML++) are one function with other
settings. Works with any `nn.Module` that keeps no state.
Source: Finn et al. 2017; Raghu et al. 2020 (ANIL); Li et al. 2017 (Meta-SGD); Antoniou et al. 2019 (MAML++).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fewshot.base.errors import check
from fewshot.meta.episodes import Episodes
from fewshot.meta.nn.norms import PlainNorms

Weights = Mapping[str, Tensor]
INNER_OPTIMIZERS = ("sgd", "adam")
LossFunction = Callable[[Tensor, Tensor], Tensor]  # predictions, targets -> mean over the examples
LossOfWeights = Callable[[Weights, Tensor, Tensor], Tensor]  # weights, inputs, targets -> mean over the examples


@dataclass(frozen=True, kw_only=True)
class InnerLoop:
    """The settings of the gradient steps on a task's support set."""

    step_size: float = 0.01  # used where none is learned
    optimizer: str = "sgd"  # adam: without momentum, as Reptile has it; first order only
    second_order: bool = True  # whether the outer gradient flows through the inner gradients
    adapts: str = ""  # only weights whose names begin so; "" for all (ANIL: the head)

    def __post_init__(self) -> None:
        check(0 < self.step_size < math.inf, f"step_size is {self.step_size}, must be above 0 and finite")
        check(
            self.optimizer in INNER_OPTIMIZERS,
            f"inner optimizer is {self.optimizer!r}, allowed: {', '.join(INNER_OPTIMIZERS)}",
        )
        check(
            self.optimizer == "sgd" or not self.second_order,
            "the inner optimizer adam has no second derivative where a gradient is 0: give second_order false, or sgd",
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the outer loop learns: where the inner loop starts, and how it goes.

    `step_sizes` has for each adapted weight a row for each step, of any shape that fits the weight. `by_step` has for
    some weights (which are then not adapted) a row for each state, after 0, 1, ... steps. The last row serves all
    steps beyond. `moments` is what an inner Adam begins with: a running mean square of gradients for each weight, and
    `steps`, the number of steps that it is a mean of; without them it begins with zeros.
    """

    weights: Weights
    step_sizes: Weights = field(default_factory=dict)
    by_step: Weights = field(default_factory=dict)
    moments: Weights = field(default_factory=dict)

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """Return the values as a tree of tensors; `Start(**parts)` is the inverse."""
        return {part: dict(getattr(self, part)) for part in ("weights", "step_sizes", "by_step", "moments")}

    def named(self) -> dict[str, Tensor]:
        """Return every tensor under a name of its own."""
        return {f"{part}.{name}": tensor for part, tensors in self.parts().items() for name, tensor in tensors.items()}

    def detached(self) -> Start:
        """Return the same values without gradients, for tests."""
        return Start(**{part: {n: t.detach() for n, t in tensors.items()} for part, tensors in self.parts().items()})


def start_of(module: nn.Module) -> Start:
    """Return a start with the module's own weights, and nothing else learned."""
    return Start(weights=dict(module.named_parameters()))


def loss_of_weights(module: nn.Module, loss: LossFunction) -> LossOfWeights:
    """Return the module's loss as a function of (weights, x, y)."""
    return lambda weights, x, y: loss(functional_call(module, dict(weights), (x,)), y)


def adapt(
    loss_of: LossOfWeights,
    start: Start,
    x: Float[Tensor, "K ..."],
    y: Float[Tensor, "K ..."],
    inner: InnerLoop,
    picks: Int[Tensor, "S B"] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield the weights after 0, 1, 2, ... steps on one task's support set; see `inner_states`."""
    return (weights for weights, _ in inner_states(loss_of, start, x, y, inner, picks))


def inner_states(
    loss_of: LossOfWeights,
    start: Start,
    x: Float[Tensor, "K ..."],
    y: Float[Tensor, "K ..."],
    inner: InnerLoop,
    picks: Int[Tensor, "S B"] | None = None,
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yield (weights, moments) after 0, 1, 2, ... steps on one task's support set, without end.

    Each step is on all K examples, or on those with the indices in its row of `picks` (then there are S steps).
    Raises BadValue if nothing is adapted.
    """
    free = {name: w for name, w in start.weights.items() if name not in start.by_step}
    moving = {name: w for name, w in free.items() if name.startswith(inner.adapts)}
    check(bool(moving), f"no weight's name begins with {inner.adapts!r}; there are {', '.join(start.weights)}")
    moments = {**no_moments(moving), **start.moments}
    for step in itertools.count() if picks is None else range(len(picks) + 1):
        still = {**free, **{name: _row(rows, step) for name, rows in start.by_step.items()}}
        yield {**still, **moving}, moments
        if picks is not None and step == len(picks):
            return
        batch = (x, y) if picks is None else (x[picks[step]], y[picks[step]])
        gradients = grad(_loss_of_moving(loss_of, still, *batch))(moving)
        if not inner.second_order:
            gradients = {name: gradient.detach() for name, gradient in gradients.items()}
        if inner.optimizer == "adam":
            gradients, moments = _scaled(gradients, moments)
        sizes: dict[str, Tensor | float] = dict.fromkeys(moving, inner.step_size)
        sizes |= {name: _row(rows, step) for name, rows in start.step_sizes.items()}
        moving = {name: w - sizes[name] * gradients[name] for name, w in moving.items()}


def _loss_of_moving(loss_of: LossOfWeights, still: Weights, x: Tensor, y: Tensor) -> Callable[[Weights], Tensor]:
    return lambda moving: loss_of({**still, **moving}, x, y)


def _row(rows: Float[Tensor, "S ..."], step: int) -> Float[Tensor, ...]:
    """Return the row of this step, or the last one."""
    return rows[min(step, len(rows) - 1)]


def no_moments(weights: Weights) -> dict[str, Tensor]:
    """Return the moments that an inner Adam begins with: zeros."""
    device = next(iter(weights.values())).device
    steps = torch.zeros((), dtype=torch.float64, device=device)  # 1 - 0.999 needs more digits than float32 has
    return {"steps": steps, **{name: torch.zeros_like(weight) for name, weight in weights.items()}}


def _scaled(
    gradients: Weights, moments: Weights, *, beta: float = 0.999
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (gradients over the root of their running mean square, the new moments).

    It is Adam without momentum. Source: Kingma and Ba 2015.
    """
    squares = {name: beta * moments[name] + (1 - beta) * gradient.square() for name, gradient in gradients.items()}
    steps = moments["steps"] + 1
    unbiased = 1 - beta**steps
    scaled = {name: gradient / ((squares[name] / unbiased).sqrt() + 1e-8) for name, gradient in gradients.items()}
    return scaled, {"steps": steps, **squares}


def query_losses(
    module: nn.Module,
    start: Start,
    episodes: Episodes,
    loss: LossFunction,
    inner: InnerLoop,
    *,
    after: Sequence[int],
    judge: LossFunction | None = None,
) -> Float[Tensor, "N A *J"]:
    """Return each task's loss on its query set after these numbers of inner steps; differentiable in `start`.

    `judge`, if given, is computed on the query set in place of the loss, and may give a tensor (J).
    """
    check(bool(after) and min(after) >= 0, f"after is {list(after)}, must hold numbers of steps from 0 on")
    learned_by, judged_by = loss_of_weights(module, loss), loss_of_weights(module, judge or loss)

    def task_losses(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        adapted = zip(range(max(after) + 1), adapt(learned_by, start, support_x, support_y, inner), strict=False)
        losses = {n: judged_by(weights, query_x, query_y) for n, weights in adapted if n in after}
        return torch.stack([losses[n] for n in after])

    with PlainNorms():
        return vmap(task_losses)(episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y)


def judge_adapted(
    module: nn.Module,
    start: Start,
    episodes: Episodes,
    loss: LossFunction,
    judge: LossFunction,
    inner: InnerLoop,
    steps: Sequence[int],
    *,
    at_once: int = 32,
) -> Float[Tensor, "N A *J"]:
    """Return each task's `judge` on its queries after these numbers of steps on its examples, without gradients.

    It is NaN where a prediction is not finite: the argmax of NaNs would be a class like others, and count as an answer.
    The weights of `at_once` tasks are in memory at a time, on the device of the start's.
    """
    device, start = next(iter(start.weights.values())).device, start.detached()
    with torch.no_grad():
        parts = [
            query_losses(module, start, part.to(device), loss, inner, after=steps, judge=finite_or_nan(judge))
            for part in episodes.split(at_once)
        ]
    return torch.cat(parts)


def finite_or_nan(judge: LossFunction) -> LossFunction:
    """Return a function like `judge` that gives NaN for predictions that are not all finite."""

    def judged(predictions: Tensor, y: Tensor) -> Tensor:
        return torch.where(predictions.isfinite().all(), judge(predictions, y), math.nan)

    return judged


def outer_gradients(
    module: nn.Module, episodes: Episodes, loss: LossFunction, inner: InnerLoop, *, n_steps: int
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return the mean query loss over tasks, and its gradient with respect to the module's initial weights."""
    start = start_of(module)
    mean = query_losses(module, start, episodes, loss, inner, after=[n_steps]).mean()
    gradients = torch.autograd.grad(mean, list(start.weights.values()))
    return mean.detach(), dict(zip(start.weights, gradients, strict=True))
