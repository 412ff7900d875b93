"""Functions from a few points, learned in context and in weights. In: a configuration. Out: errors against examples.

GPTs of one or several sizes read the points, MAML takes gradient steps on them; least squares, nearest neighbours and
others are baselines. Functions are linear, with or without noise on y (Garg et al. 2022), or MAML's sinusoids (Finn et
al. 2017). With `n_known` they are those of a fixed pool in training, and both these and fresh ones in the test: the
pool's are retrieved by Bayes over it, fresh ones are inferred by ridge (Raventos et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured
from fewshot.meta.episodes import Episodes, Sinusoids, Tasks, check_drawn
from fewshot.meta.learners.baselines import (
    Rule,
    linear_rules,
    nearest_neighbours,
    predictions,
    retrieve,
    tuned_steps,
    zero,
)
from fewshot.meta.learners.in_context import ContextModelConfig, squared_errors
from fewshot.meta.learners.weight_learner import LearnerConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.functions import AT_ONCE, CONTEXT, FunctionLearners, Judge, check_settings

RETRIEVE = "retrieve"
KNOWN, FRESH = "known", "fresh"  # families of tasks
FUNCTIONS = ("linear", "sinusoid")
LEAST_NOISE = 1e-4  # with less, ridge's equations are singular to 64 bits


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one value
class LinearFunctions:
    """y = w x + noise; x and w are N(0, I), so the best possible prediction is ridge's.

    Predicting 0 has a squared error of n_dims + noise^2. Source: Garg et al. 2022, section 3; Raventos et al. 2023.
    """

    n_dims: int
    noise: float = 0.0  # standard deviation
    known: Float[Tensor, "M X 1"] | None = None  # the weights of a fixed pool that functions are drawn from

    def weights(self, n_tasks: int, generator: torch.Generator) -> Float[Tensor, "N X 1"]:
        """Return fresh weights, or those of functions of the pool."""
        if self.known is None:
            return torch.randn(n_tasks, self.n_dims, 1, generator=generator)
        return self.known[torch.randint(len(self.known), (n_tasks,), generator=generator)]

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return functions with fresh points on them, or near them with noise."""
        x = torch.randn(n_tasks, n_support + n_query, self.n_dims, generator=generator)
        y = x @ self.weights(n_tasks, generator)
        if self.noise:
            y = y + self.noise * torch.randn(y.shape, generator=generator)
        return Episodes(x[:, :n_support], y[:, :n_support], x[:, n_support:], y[:, n_support:])


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; as in Garg et al. 2022 but small: 5 dimensions, 10 examples and a query, 64 functions an iteration."""

    functions: str = "linear"  # or sinusoid
    n_dims: int = 5  # of x, where functions are linear
    noise: float = 0.0  # standard deviation of the noise on y, where functions are linear
    n_known: int | None = None  # linear functions of the fixed pool that training draws from; null: all are fresh
    n_examples: int = 10  # the most that a learner is tested with
    n_beyond: int = 1  # more of them in training in context, which learns the last place least well
    n_tasks: int = 64  # of one iteration of training in context
    reader: ContextModelConfig | None = field(
        default_factory=ContextModelConfig
    )  # the model that learns in context; null for none
    sizes: tuple[ContextModelConfig, ...] | None = None  # several readers in its place, such as a ladder's
    relative: bool = True  # training in context minimises the log of the error at each place, not the error
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(warmup=300, clip_norm=1.0))  # in context
    learner: LearnerConfig = field(default_factory=LearnerConfig)  # in weights, beside it; context for none
    learner_outer: OuterConfig = field(default_factory=OuterConfig)  # in weights
    widths: tuple[int, ...] = (40, 40)  # of the perceptron that learns in weights
    test_tasks: int = 4000
    test_steps: tuple[int, ...] = (1, 10)  # gradient steps of the learner in weights
    test_within: float | None = None  # share of answers this near is measured too, beside the error; null: is not
    seeds: int = 1  # of weights, pool and test; of several, intervals are over them
    threads: int = 1

    def __post_init__(self) -> None:
        check(self.functions in FUNCTIONS, f"functions is {self.functions!r}, allowed: {', '.join(FUNCTIONS)}")
        check(
            self.functions == "linear" or not self.noise,
            f"noise is {self.noise}, but a {self.functions} has none: give 0",
        )
        check_counts(self, "n_dims")
        check(0 <= self.noise < math.inf, f"noise is {self.noise}, must be at least 0 and finite")
        check(
            not 0 < self.noise < LEAST_NOISE,
            f"noise is {self.noise}, must be 0 or at least {LEAST_NOISE}: ridge needs it",
        )
        self._check_sizes()
        self._check_known()
        check(
            self.test_within is None or 0 < self.test_within < math.inf,
            f"test_within is {self.test_within}, must be above 0 and finite, or null",
        )
        check_settings(self)

    @property
    def readers(self) -> dict[str, ContextModelConfig]:
        """The models that learn in context, by the names of their curves and loops."""
        if self.sizes is not None:
            return {size.shape: size for size in self.sizes}
        return {} if self.reader is None else {CONTEXT: self.reader}

    def _check_sizes(self) -> None:
        if self.sizes is None:
            return
        names = [size.shape for size in self.sizes]
        check(
            len(set(names)) == len(names) > 0,
            f"sizes are {names}, must be at least one, each n_layers x d_model once: they are names of curves",
        )
        check(
            self.reader in (None, ContextModelConfig()),
            "both reader and sizes are given: leave one out, sizes stand in the reader's place",
        )

    def _check_known(self) -> None:
        if self.n_known is None:
            return
        check_counts(self, "n_known")
        check(
            self.functions == "linear" and self.noise > 0,
            f"n_known is {self.n_known}, which is for linear functions with noise above 0: without it no function of "
            "the pool explains points of another one; give functions linear and a noise, or n_known null",
        )


class Experiment:
    """Learners in context and a learner in weights on the same functions, with the `seed`-th of several seeds."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        self.config = config
        self.data: dict[str, str] = {}  # none is read: functions are drawn
        linear = config.functions == "linear"
        d_x = config.n_dims if linear else 1
        self.judges = judges("squared error over d" if linear else "mean squared error", d_x, config.test_within)
        self.fresh: Tasks = LinearFunctions(config.n_dims, config.noise) if linear else Sinusoids()
        self.tasks, self.known = self.fresh, None  # the tasks of training
        if isinstance(self.fresh, LinearFunctions) and config.n_known is not None:
            check_drawn(AT_ONCE, config.n_known * (config.n_examples + 1), "n_known", "n_examples")
            generator = torch.Generator().manual_seed(seed_of("meta regression", "known", config.outer.seed + seed))
            self.known = self.fresh.weights(config.n_known, generator)
            self.tasks = replace(self.fresh, known=self.known)
        self.learners = FunctionLearners(
            config,
            self.tasks,
            kind="meta regression",
            d_x=d_x,
            judges=self.judges,
            reading_loss=self._reading_loss,
            loss=mse_loss,
            seed=seed,
        )
        self.loops, self.readers = self.learners.loops, self.learners.readers

    def watch(self, name: str) -> Mapping[str, float]:
        """Return the error in context on a few tasks as in training after no example, half of them and all."""
        return self.learners.watch(name, "error")

    def measure(self) -> Measured:
        """Return the errors on unseen functions; those on sinusoids have the units of `meta/tasks/sinusoid.py`."""
        curves = []
        for family in ("",) if self.known is None else (KNOWN, FRESH):
            tasks, what = (self.tasks, "test known") if family == KNOWN else (self.fresh, "test")
            drawn = self.learners.unseen(tasks, what, self.config.test_tasks)
            measured = [*self.learners.curves(drawn), *self._by_rules(drawn, family)]
            curves += [replace(curve, tasks=family) for curve in measured]
        noisy = "noisy linear regression" if self.config.noise else "linear regression"
        tasks_in_words = noisy if self.config.functions == "linear" else "sinusoid"
        return Measured(tasks=tasks_in_words, quantity=self.judges[0].quantity, curves=self.learners.with_facts(curves))

    def _reading_loss(self, predicted: Float[Tensor, "N K Y"], y: Float[Tensor, "N K Y"]) -> Float[Tensor, ""]:
        """Return the mean over places of the error, or of its log.

        The first places, where y cannot be known, have most of the error and most of the gradient's noise. In the mean
        log of errors each place counts relative to its own error: it is the negative log-likelihood, but for constants,
        of normal distributions whose variance at each place is the best one.
        """
        errors = self.judges[0].of(predicted, y).mean(0)
        return errors.log().mean() if self.config.relative else errors.mean()

    def _by_rules(self, drawn: Episodes, family: str) -> list[Curve]:
        """Return the curves of the baselines, which no outer loop trained; the best possible, if known, is first."""
        x, y = self.learners.sequences(drawn)
        rules: Mapping[str, Rule] = {"3 nearest neighbours": nearest_neighbours}
        best = None
        if self.config.functions == "linear":
            tuning = self.learners.unseen(self.fresh, "tuning", len(drawn), n_query=1)
            rules = linear_rules(noise=self.config.noise, steps=tuned_steps(*self.learners.sequences(tuning)))
            best = next(iter(rules))
        answers = {name: predictions(rule, x, y) for name, rule in {**rules, "predicting 0": zero}.items()}
        if self.known is not None:
            parts = zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True)
            retrieved = [retrieve(*part, self.known, noise=self.config.noise) for part in parts]
            answers = {RETRIEVE: torch.cat(retrieved), **answers}
            best = RETRIEVE if family == KNOWN else best
        return [
            curve
            for name, predicted in answers.items()
            for curve in self.learners.judged(name, "bound" if name == best else "baseline", predicted, y)
        ]


def judges(error: str, scale: float, within: float | None) -> tuple[Judge, ...]:
    """Return the squared error over `scale`, which is called `error`, and the share of answers `within` so much."""
    squared = Judge(error, False, lambda predicted, y: squared_errors(predicted, y) / scale)
    if within is None:
        return (squared,)
    right = Judge(f"accuracy within {within:g}", True, lambda p, y: ((p - y).abs() <= within).all(-1).to(y.dtype))
    return squared, right
