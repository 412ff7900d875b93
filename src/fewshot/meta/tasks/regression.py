"""Functions from a few points, learned in context and in weights. In: a configuration. Out: errors against examples.

A GPT reads the points, MAML takes gradient steps on them; least squares, nearest neighbours and others are baselines.
Functions are linear, with or without noise on y (Garg et al. 2022), or MAML's sinusoids (Finn et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured, Point
from fewshot.meta.episodes import Episodes, Sinusoids, Tasks, check_drawn
from fewshot.meta.flops import training_flops
from fewshot.meta.learners.baselines import Rule, linear_rules, nearest_neighbours, predictions, tuned_steps, zero
from fewshot.meta.learners.in_context import (
    ContextModelConfig,
    PairModel,
    as_sequences,
    points_by_examples,
    squared_errors,
)
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss

CONTEXT = "context"
FUNCTIONS = ("linear", "sinusoid")
AT_ONCE = 1000  # unseen tasks in memory at a time
N_QUERY = 10  # queries of an unseen task for the learner in weights
LEAST_NOISE = 1e-4  # with less, ridge's equations are singular to 64 bits
N_WATCHED = 500  # tasks whose errors are logged in training


@dataclass(frozen=True)
class LinearFunctions:
    """y = w x + noise; x and w are N(0, I), so the best possible prediction is ridge's.

    Predicting 0 has a squared error of n_dims + noise^2. Source: Garg et al. 2022, section 3; Raventos et al. 2023.
    """

    n_dims: int
    noise: float = 0.0  # standard deviation

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return fresh functions with points on them, or near them with noise."""
        x = torch.randn(n_tasks, n_support + n_query, self.n_dims, generator=generator)
        y = x @ torch.randn(n_tasks, self.n_dims, 1, generator=generator)
        if self.noise:
            y = y + self.noise * torch.randn(y.shape, generator=generator)
        return Episodes(x[:, :n_support], y[:, :n_support], x[:, n_support:], y[:, n_support:])


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; as in Garg et al. 2022 but small: 5 dimensions, 10 examples and a query, 64 functions an iteration.

    `reader` is the model that learns in context.
    """

    functions: str = "linear"  # or sinusoid
    n_dims: int = 5  # of x, where functions are linear
    noise: float = 0.0  # standard deviation of the noise on y, where functions are linear
    n_examples: int = 10  # the most that a learner is tested with
    n_beyond: int = 1  # more of them in training in context, which learns the last place least well
    n_tasks: int = 64  # of one iteration of training in context
    reader: ContextModelConfig | None = field(
        default_factory=ContextModelConfig
    )  # the model that learns in context; null for none
    relative: bool = True  # training in context minimises the log of the error at each place, not the error
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(warmup=300, clip_norm=1.0))  # in context
    learner: LearnerConfig = field(default_factory=LearnerConfig)  # in weights, beside it; context for none
    learner_outer: OuterConfig = field(default_factory=OuterConfig)  # in weights
    widths: tuple[int, ...] = (40, 40)  # of the perceptron that learns in weights
    test_tasks: int = 4000
    test_steps: tuple[int, ...] = (1, 10)  # gradient steps of the learner in weights
    threads: int = 1

    def __post_init__(self) -> None:
        check(self.functions in FUNCTIONS, f"functions is {self.functions!r}, allowed: {', '.join(FUNCTIONS)}")
        check(
            self.functions == "linear" or not self.noise,
            f"noise is {self.noise}, but a {self.functions} has none: give 0",
        )
        check_counts(self, "n_dims", "n_examples", "n_tasks", "threads")
        check(self.n_beyond >= 0, f"n_beyond is {self.n_beyond}, must be at least 0")
        check(0 <= self.noise < math.inf, f"noise is {self.noise}, must be at least 0 and finite")
        check(
            not 0 < self.noise < LEAST_NOISE,
            f"noise is {self.noise}, must be 0 or at least {LEAST_NOISE}: ridge needs it",
        )
        check(self.test_tasks >= 2, f"test_tasks is {self.test_tasks}, must be at least 2: intervals are over tasks")
        check(
            bool(self.test_steps) and min(self.test_steps) >= 1,
            f"test_steps is {list(self.test_steps)}, must hold numbers of gradient steps from 1 on",
        )
        learns = self.reader is not None or self.learner.algorithm != CONTEXT
        check(learns, "nothing is left to learn: give a reader, or a learner in weights")
        check(
            self.learner.algorithm == CONTEXT or self.learner.n_support <= self.n_examples,
            f"learner.n_support is {self.learner.n_support}, must be at most n_examples, {self.n_examples}",
        )
        check(
            self.learner.algorithm == CONTEXT or self.learner.name != CONTEXT,
            f"learner.name is {CONTEXT!r}, which is that of the learner in context: give another one",
        )


class Experiment:
    """A learner in context and a learner in weights on the same functions."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: dict[str, str] = {}  # none is read: functions are drawn
        linear = config.functions == "linear"
        self.tasks: Tasks = LinearFunctions(config.n_dims, config.noise) if linear else Sinusoids()
        self.d_x = config.n_dims if linear else 1
        self.scale = config.n_dims if linear else 1  # errors are divided by it
        n_numbers = (config.n_examples + config.n_beyond + N_QUERY) * (self.d_x + 1)
        check_drawn(config.test_tasks, n_numbers, "test_tasks", "n_examples")
        check_drawn(config.n_tasks, n_numbers, "n_tasks", "n_examples")
        self.loops: dict[str, OuterLoop] = {}
        self.pair_model: PairModel | None = None
        self.in_weights: WeightLearner | None = None
        if config.reader is not None:
            torch.manual_seed(config.outer.seed)
            self.pair_model = PairModel(config.reader, d_x=self.d_x, n_pairs=config.n_examples + config.n_beyond + 1)
            self.loops[CONTEXT] = OuterLoop(dict(self.pair_model.named_parameters()), self._step, config.outer)
        if config.learner.algorithm != CONTEXT:
            network = perceptron(self.d_x, config.widths, 1, seed=config.learner_outer.seed)
            self.in_weights = WeightLearner(
                network, self.tasks, mse_loss, config.learner, n_iterations=config.learner_outer.n_iterations
            )
            start = self.in_weights.start.named()
            self.loops[config.learner.name] = OuterLoop(
                start, self.in_weights.step, config.learner_outer, way_out="lower learner.step_size or learner_outer.lr"
            )
        self.watched = self._unseen("watched", N_WATCHED, n_query=1)

    @torch.no_grad()
    def watch(self, name: str) -> Mapping[str, float]:
        """Return the error in context on a few unseen tasks after no example, half of them and all."""
        if name != CONTEXT:
            return {}
        errors = self._context_errors(*self._sequences(self.watched)).mean(0)
        n = self.config.n_examples
        return {f"error_{k}": errors[k].item() for k in sorted({0, n // 2, n})}

    def measure(self) -> Measured:
        """Return the errors on unseen functions; those on sinusoids have the units of `meta/tasks/sinusoid.py`."""
        unseen = self._unseen("test", self.config.test_tasks, n_query=N_QUERY)
        curves = [*self._in_context(unseen), *self._by_steps(unseen), *self._by_rules(unseen)]
        if self.config.functions == "sinusoid":
            return Measured(tasks="sinusoid", quantity="mean squared error", curves=tuple(curves))
        tasks = "noisy linear regression" if self.config.noise else "linear regression"
        return Measured(tasks=tasks, quantity="squared error over d", curves=tuple(curves))

    def _step(self, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the error in context on fresh functions, over every y of each.

        The first places, where y cannot be known, have most of the error and most of the gradient's noise. In the mean
        log of errors each place counts relative to its own error: it is the negative log-likelihood, but for constants,
        of normal distributions whose variance at each place is the best one.
        """
        config = self.config
        drawn = self.tasks.draw(config.n_tasks, config.n_examples + config.n_beyond, 1, generator)
        errors = self._context_errors(*as_sequences(drawn)).mean(0)
        return OuterLoss(errors.log().mean() if config.relative else errors.mean())

    def _unseen(self, what: str, n_tasks: int, *, n_query: int) -> Episodes:
        generator = torch.Generator().manual_seed(seed_of("meta regression", what))
        return self.tasks.draw(n_tasks, self.config.n_examples, n_query, generator)

    def _sequences(self, episodes: Episodes) -> tuple[Float[Tensor, "N K X"], Float[Tensor, "N K Y"]]:
        """Return the examples and one query of each task."""
        places = slice(self.config.n_examples + 1)
        x, y = as_sequences(episodes)
        return x[:, places], y[:, places]

    def _context_errors(self, x: Float[Tensor, "N K X"], y: Float[Tensor, "N K Y"]) -> Float[Tensor, "N K"]:
        """Return the error in context on each task after 0, 1, ... examples."""
        assert self.pair_model is not None
        return squared_errors(self.pair_model(x, y), y) / self.scale

    @torch.no_grad()
    def _in_context(self, unseen: Episodes) -> list[Curve]:
        model = self.pair_model
        if model is None:
            return []
        errors = torch.cat([self._context_errors(*self._sequences(part)) for part in unseen.split(AT_ONCE)])
        x, y = self._sequences(unseen[:1])
        points = points_by_examples(errors, range(x.shape[1]), lambda k: model(x[:, : k + 1], y[:, : k + 1]))
        flops = training_flops(self._step, n_iterations=self.config.outer.n_iterations)
        return [Curve(learner=CONTEXT, kind="context", points=points, training_flops=flops)]

    def _by_steps(self, unseen: Episodes) -> list[Curve]:
        """Return the curve of the learner in weights: without examples, and with as many as in training or more.

        With fewer examples, steps of the size that it was trained with can lead anywhere, and means over tasks say
        nothing.
        """
        learner, config = self.in_weights, self.config
        if learner is None:
            return []

        def judge(predicted: Tensor, y: Tensor) -> Tensor:
            return mse_loss(predicted, y) / self.scale

        def points_with(k: int, steps: Sequence[int]) -> tuple[Point, ...]:
            part = replace(unseen, support_x=unseen.support_x[:, :k], support_y=unseen.support_y[:, :k])
            return learner.curve(part, steps, n_examples=k, judge=judge, at_once=AT_ONCE).points

        points = [replace(point, n_examples=0) for point in points_with(1, [0])]
        for k in range(config.learner.n_support, config.n_examples + 1):
            points += points_with(k, config.test_steps)
        flops = training_flops(learner.step, n_iterations=config.learner_outer.n_iterations)
        return [Curve(learner=config.learner.name, kind="weights", points=tuple(points), training_flops=flops)]

    def _by_rules(self, unseen: Episodes) -> list[Curve]:
        """Return the curves of the baselines, which no outer loop trained; the best possible, if known, is first."""
        x, y = self._sequences(unseen)
        rules: Mapping[str, Rule] = {"3 nearest neighbours": nearest_neighbours}
        if self.config.functions == "linear":
            steps = tuned_steps(*self._sequences(self._unseen("tuning", len(unseen), n_query=1)))
            rules = linear_rules(noise=self.config.noise, steps=steps)
        best = next(iter(rules)) if self.config.functions == "linear" else None
        curves = []
        for name, rule in {**rules, "predicting 0": zero}.items():
            errors = squared_errors(predictions(rule, x, y), y) / self.scale
            points = points_by_examples(errors, range(x.shape[1]))
            curves.append(Curve(learner=name, kind="bound" if name == best else "baseline", points=points))
        return curves
