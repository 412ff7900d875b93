"""Sinusoids from a few points, as in Finn et al. 2017, section 5.1. In: a configuration. Out: curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch.nn.functional import mse_loss

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Measured
from fewshot.meta.episodes import Sinusoids, check_drawn
from fewshot.meta.flops import training_facts
from fewshot.meta.learners.weight_learner import WAY_OUT, LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; the defaults are the paper's task and network."""

    learner: LearnerConfig = field(default_factory=LearnerConfig)
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(n_iterations=70_000))
    widths: tuple[int, ...] = (40, 40)
    test_tasks: int = 600
    test_support: int = 5  # examples of an unseen task
    test_query: int = 100
    test_steps: tuple[int, ...] = (0, 1, 5, 10)
    seeds: int = 1  # of the weights and of the test's tasks; of several, intervals are over them
    threads: int = 1  # tensors this small gain nothing from a second one

    def __post_init__(self) -> None:
        check_counts(self, "test_support", "test_query", "seeds", "threads")
        check(self.test_tasks >= 2, f"test_tasks is {self.test_tasks}, must be at least 2: intervals are over tasks")
        check(
            bool(self.test_steps) and min(self.test_steps) >= 0,
            f"test_steps is {list(self.test_steps)}, must hold numbers of gradient steps from 0 on",
        )


class Experiment:
    """One learner on sinusoids, with the `seed`-th of several seeds."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        self.config, self.seed, name = config, seed, config.learner.name
        self.data: dict[str, str] = {}  # none is read: tasks are drawn
        check_drawn(config.test_tasks, config.test_support + config.test_query, "test_tasks", "test_query")
        outer = replace(config.outer, seed=config.outer.seed + seed)
        network = perceptron(1, config.widths, 1, seed=outer.seed)
        self.learner = WeightLearner(network, Sinusoids(), mse_loss, config.learner, n_iterations=outer.n_iterations)
        self.loops = {name: OuterLoop(self.learner.start.named(), self.learner.step, outer, way_out=WAY_OUT)}

    def watch(self, name: str) -> Mapping[str, float]:
        """Return nothing: only the loss is logged."""
        return {}

    def measure(self) -> Measured:
        """Return the mean squared error on unseen waves after gradient steps on a few of their points."""
        config = self.config
        generator = torch.Generator().manual_seed(seed_of("meta test", self.seed))
        unseen = Sinusoids().draw(config.test_tasks, config.test_support, config.test_query, generator)
        curve = self.learner.curve(unseen, config.test_steps, n_examples=config.test_support)
        curve = replace(curve, **training_facts(self.loops[curve.learner]))
        return Measured(tasks="sinusoid", quantity="mean squared error", curves=(curve,))
