"""Learners in weights. In: a module, a distribution over tasks, a configuration. Out: a step of the outer loop, curves.

MAML and its relatives differ in options; `LEARNERS` has the published names. Knows neither files nor the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad

from fewshot.base.errors import UnknownName, check, check_counts
from fewshot.meta.curves import Curve, point
from fewshot.meta.episodes import Episodes, Tasks, check_drawn
from fewshot.meta.flops import flops_of
from fewshot.meta.learners.maml import InnerLoop, LossFunction, Start, judge_adapted, no_moments, query_losses
from fewshot.meta.learners.reptile import batches, reptile_gradients
from fewshot.meta.nn.kernels import check_kernels
from fewshot.meta.nn.traced_function import TracedFunction, compiles
from fewshot.meta.outer_loop import OuterLoss

ALGORITHMS = ("maml", "reptile", "pretrain", "context")
STEP_SIZES = ("fixed", "weight", "layer")

# Published names and the options that make them; Raghu et al. 2020 (anil), Li et al. 2017 (meta-sgd),
# Antoniou et al. 2019 (maml++), Nichol et al. 2018 (reptile)
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "maml": {},
    "fomaml": {"first_order_share": 1.0},
    "anil": {"adapts": "head."},
    "meta-sgd": {"step_sizes": "weight"},
    "maml++": {"step_sizes": "layer", "multi_step_share": 0.1, "first_order_share": 0.3, "by_step": "norm"},
    "reptile": {"algorithm": "reptile", "inner_optimizer": "adam", "step_size": 1e-3},
    "pretrain": {"algorithm": "pretrain"},
    "context": {"algorithm": "context"},
}

# The advice when an outer loop of a learner in weights diverges: either loop can be the reason
WAY_OUT = "lower learner.step_size or outer.lr"

StartParts = dict[str, dict[str, Tensor]]  # a `Start` as a tree


def learner_options(learner: str) -> dict[str, Any]:
    """Return the options that make a published learner, the others at their defaults; raises UnknownName."""
    if not isinstance(learner, str) or learner not in LEARNERS:  # YAML may hold anything
        raise UnknownName("learner", str(learner), LEARNERS)
    plain = {name: getattr(LearnerConfig(), name) for options in LEARNERS.values() for name in options}
    del plain["step_size"]  # belongs to the task
    return {**plain, "name": learner, **LEARNERS[learner]}


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How tasks are learned; by default as in Finn et al. 2017 for sinusoids, with `n_support` of their test."""

    name: str = "maml"  # shown in tables
    algorithm: str = "maml"  # or reptile; pretrain: on all examples of all tasks; context: a GPT reads the examples
    n_tasks: int = 25  # of one iteration
    n_support: int = 5  # examples of a task (and class) for the inner loop
    n_query: int = 10  # examples for the outer loss
    n_steps: int = 1  # of the inner loop in training
    step_size: float = 0.01  # of the inner loop; where step sizes are learned, the first one
    step_sizes: str = "fixed"  # or learned: one for each "weight", or for each "layer"'s tensors and step
    inner_optimizer: str = "sgd"
    adapts: str = ""  # only weights whose names begin so
    by_step: str = ""  # weights with this in their names have a value for each step, in place of being adapted
    first_order_share: float = 0.0  # of training, at its beginning, without second derivatives
    multi_step_share: float = 0.0  # of training, in which losses after all steps count, less and less; may be above 1
    batch: int = 10  # examples that a step of reptile's inner loop takes
    compile: str = "auto"  # if there is a compiler, for a long run; or always, never; untraced: not traced either

    def __post_init__(self) -> None:
        check_counts(self, "n_tasks", "n_support", "n_query", "n_steps", "batch")
        check(self.algorithm in ALGORITHMS, f"algorithm is {self.algorithm!r}, allowed: {', '.join(ALGORITHMS)}")
        check(self.step_sizes in STEP_SIZES, f"step_sizes is {self.step_sizes!r}, allowed: {', '.join(STEP_SIZES)}")
        check(0 <= self.first_order_share <= 1, f"first_order_share is {self.first_order_share}, must be from 0 to 1")
        check(self.multi_step_share >= 0, f"multi_step_share is {self.multi_step_share}, must be at least 0")
        check(
            self.algorithm != "reptile" or (self.step_sizes == "fixed" and not self.by_step),
            "reptile learns weights only: give step_sizes fixed and no by_step",
        )
        self.inner(second_order=self.inner_optimizer == "sgd")

    def inner(self, *, second_order: bool) -> InnerLoop:
        """Return the settings of the inner loop."""
        return InnerLoop(
            step_size=self.step_size,
            optimizer=self.inner_optimizer,
            second_order=second_order,
            adapts=self.adapts,
        )

    def step_weights(self, done: float) -> tuple[float, ...]:
        """Return the weight of the loss after each inner step, summing to 1, when a share of training is done.

        They go linearly from equal weights to all on the last step. Source: Antoniou et al. 2019, section 4.
        """
        left = max(0.0, 1 - done / self.multi_step_share) if self.multi_step_share else 0.0
        others = left / self.n_steps
        return (*[others] * (self.n_steps - 1), 1 - others * (self.n_steps - 1))


def configured_start(module: nn.Module, config: LearnerConfig) -> Start:
    """Return what a learner learns: the module's weights, and step sizes and weights by step as configured."""
    weights = dict(module.named_parameters())
    rows = config.n_steps + 1
    by_step = {
        name: weight.detach().expand(rows, *weight.shape).clone().requires_grad_()
        for name, weight in weights.items()
        if config.by_step and config.by_step in name
    }
    moving = {
        name: weight for name, weight in weights.items() if name.startswith(config.adapts) and name not in by_step
    }
    sizes = {}
    for name, weight in moving.items():
        shape = {"fixed": None, "weight": (1, *weight.shape), "layer": (config.n_steps,)}[config.step_sizes]
        if shape is not None:
            sizes[name] = torch.full(shape, config.step_size, device=weight.device, requires_grad=True)
    keeps = config.algorithm == "reptile" and config.inner_optimizer == "adam"
    moments = no_moments({name: weight.detach() for name, weight in moving.items()}) if keeps else {}
    still = {name: weight for name, weight in weights.items() if name not in by_step}
    return Start(weights=still, step_sizes=sizes, by_step=by_step, moments=moments)


class WeightLearner:
    """A module that learns tasks by gradient steps; the outer loop calls `step` and learns `start`.

    Raises KernelUnsupported for attention that cannot be differentiated as often as the learner needs.
    """

    def __init__(
        self, module: nn.Module, tasks: Tasks, loss: LossFunction, config: LearnerConfig, *, n_iterations: int = 1
    ) -> None:
        check(config.algorithm != "context", "a learner in context has no gradient steps on examples")
        check_kernels(module, second_order=config.algorithm == "maml" and config.first_order_share < 1)
        self.module, self.tasks, self.loss, self.config = module, tasks, loss, config
        n_moving = sum(weight.numel() for weight in module.parameters())
        check_drawn(
            config.n_tasks, n_moving + config.n_support + config.n_query, "learner.n_tasks", "learner.n_support"
        )
        self.start = configured_start(module, config)
        self.device = next(iter(self.start.weights.values())).device
        self._compiled = compiles(config.compile, n_calls=n_iterations, device=self.device.type)
        self._traced: dict[tuple[object, ...], TracedFunction] = {}

    def step(self, generator: torch.Generator, done: float) -> OuterLoss:
        """Return loss and gradients of fresh tasks when this share of training is done."""
        config = self.config
        episodes = self.tasks.draw(config.n_tasks, config.n_support, config.n_query, generator).to(self.device)
        if config.algorithm == "reptile":
            return self._reptile_step(episodes, generator)
        if config.algorithm == "pretrain":
            return self._gradient_step(episodes.all_as_query(), {0: 1.0}, second_order=False)
        counts = {n + 1: share for n, share in enumerate(config.step_weights(done)) if share}
        return self._gradient_step(episodes, counts, second_order=done >= config.first_order_share)

    def _gradient_step(self, episodes: Episodes, counts: Mapping[int, float], *, second_order: bool) -> OuterLoss:
        """Return the last query loss, and gradients of those after these numbers of steps, weighted by `counts`."""
        after, inner = list(counts), self.config.inner(second_order=second_order)

        def weighted_gradients(
            start: StartParts, tasks: tuple[Tensor, ...], shares: Tensor
        ) -> tuple[StartParts, Tensor]:
            def objective(start: StartParts) -> tuple[Tensor, Tensor]:
                losses = query_losses(self.module, Start(**start), Episodes(*tasks), self.loss, inner, after=after)
                return (losses.mean(0) * shares).sum(), losses[:, -1].mean()

            gradients, last = grad(objective, has_aux=True)(start)
            return gradients, last

        traced = self._traced_function(weighted_gradients, "gradient", *after, second_order)
        shares = torch.tensor(list(counts.values()), device=self.device)
        gradients, last = traced(self.start.parts(), episodes.parts(), shares)
        return OuterLoss(last, Start(**gradients).named())

    def _reptile_step(self, episodes: Episodes, generator: torch.Generator) -> OuterLoss:
        config, whole = self.config, episodes.all_as_query()
        x, y = whole.query_x, whole.query_y
        picks = batches(len(x), x.shape[1], n_steps=config.n_steps, batch=config.batch, generator=generator)

        def gradients_and_loss(start: StartParts, x: Tensor, y: Tensor, picks: Tensor) -> tuple[StartParts, Tensor]:
            difference, loss = reptile_gradients(
                self.module, Start(**start), x, y, picks, self.loss, config.inner(second_order=False)
            )
            return difference.parts(), loss

        gradients, loss = self._traced_function(gradients_and_loss, "reptile")(
            self.start.parts(), x, y, picks.to(self.device)
        )
        for name, moment in self.start.moments.items():
            moment.sub_(gradients["moments"][name])  # set to the mean of the tasks', whatever the outer step size
        return OuterLoss(loss, Start(weights=gradients["weights"]).named())

    def _traced_function(self, function: Callable[..., object], *key: object) -> TracedFunction:
        """Return the traced function of a key, made from `function` at the first call."""
        return self._traced.setdefault(
            key, TracedFunction(function, compiled=self._compiled, traced=self.config.compile != "untraced")
        )

    def curve(
        self,
        episodes: Episodes,
        steps: Sequence[int],
        *,
        n_examples: int,
        judge: LossFunction | None = None,
        at_once: int = 100,
        name: str | None = None,
        is_share: bool = False,
    ) -> Curve:
        """Return the curve over unseen tasks after each number of gradient steps on `n_examples` examples of each.

        `judge`, if given, is computed on the query set in place of the loss, and `is_share` tells whether it is one;
        `at_once` tasks are in memory at a time.
        """
        judged = partial(self.judged, judge=judge, at_once=at_once)
        values, task = judged(episodes, steps), episodes[:1]
        one_query = replace(task, query_x=task.query_x[:, :1], query_y=task.query_y[:, :1])
        flops = [flops_of(partial(judged, one_query, [n])) for n in steps]
        points = [
            point(values[:, i].tolist(), n_examples=n_examples, n_steps=n, flops=flops[i], is_share=is_share)
            for i, n in enumerate(steps)
        ]
        return Curve(learner=name or self.config.name, kind="weights", points=tuple(points))

    def judged(
        self, episodes: Episodes, steps: Sequence[int], judge: LossFunction | None = None, *, at_once: int = 100
    ) -> Float[Tensor, "N A *J"]:
        """Return `judge`, or else the loss, on each task's query set after each number of steps on its examples."""
        inner = self.config.inner(second_order=False)
        return judge_adapted(
            self.module, self.start, episodes, self.loss, judge or self.loss, inner, steps, at_once=at_once
        )
