"""One layer of linear attention beside one gradient step. In: a configuration. Out: errors on unseen linear functions.

A layer of self-attention without a softmax, trained to read the points of a linear function, comes to predict what one
step of gradient descent on these points predicts, of the best size. The first step of MAML on a linear network is that
step too; here it is trained, beside the layer and the step whose size is computed.
Source: von Oswald et al. 2023, "Transformers Learn In-Context by Gradient Descent", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fewshot.base.errors import check, check_counts
from fewshot.base.rng import seed_of
from fewshot.meta.curves import Curve, Measured, Point, point
from fewshot.meta.episodes import Episodes, check_drawn
from fewshot.meta.flops import flops_of, training_flops
from fewshot.meta.learners.baselines import Rule, gradient_step, least_squares, tuned_steps, zero
from fewshot.meta.learners.in_context import as_sequences, squared_errors
from fewshot.meta.learners.weight_learner import WAY_OUT, LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss

CONTEXT = "context"
N_TUNING = 20_000  # tasks from which the size of the gradient step is computed
N_WATCHED = 5_000  # unseen tasks on which layer and step are compared in training
AT_ONCE = 5_000  # unseen tasks in memory at a time


@dataclass(frozen=True)
class LinearFunctions:
    """y = w x without noise; x is uniform in [-1, 1], w is N(0, I). Predicting 0 has a squared error of n_dims / 3."""

    n_dims: int

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return fresh functions with points on them."""
        x = 2 * torch.rand(n_tasks, n_support + n_query, self.n_dims, generator=generator) - 1
        y = x @ torch.randn(n_tasks, self.n_dims, 1, generator=generator)
        return Episodes(x[:, :n_support], y[:, :n_support], x[:, n_support:], y[:, n_support:])


class LinearAttention(nn.Module):
    """One layer of self-attention with one head and no softmax over the points (x, y) and a last point (x, 0).

    What the layer adds to the y of the last point is the prediction. Source: von Oswald et al. 2023, equation 3.
    """

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(n_dims + 1, n_dims + 1, bias=False) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "N K X"], y: Float[Tensor, "N K 1"], query: Float[Tensor, "N X"]
    ) -> Float[Tensor, "N 1"]:
        """Return the prediction of each query's y from the K points before it."""
        last = nn.functional.pad(query, (0, 1))[:, None]
        points = torch.cat([torch.cat([x, y], 2), last], 1)
        # Without a softmax, matrices of keys and values can be moved to what is one vector a task
        scores = self.query(last) @ self.key.weight @ points.mT
        return self.out(self.value(scores @ points))[:, 0, -1:]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; as in von Oswald et al. 2023: 10 dimensions, 10 examples."""

    n_dims: int = 10  # of x
    n_examples: int = 10
    n_tasks: int = 512  # of one iteration of the layer's training
    outer: OuterConfig = field(
        default_factory=lambda: OuterConfig(n_iterations=2000, lr=3e-3, clip_norm=1.0, report_every=250)
    )
    learner: LearnerConfig = field(
        default_factory=lambda: LearnerConfig(
            n_tasks=256, n_support=10, n_query=10, step_size=0.1, step_sizes="layer", compile="never"
        )
    )  # in weights, on a linear network; context for none
    learner_outer: OuterConfig = field(
        default_factory=lambda: OuterConfig(n_iterations=300, lr=2e-2, report_every=100)
    )  # in weights
    seeds: int = 1  # of initial weights and training
    test_tasks: int = 20_000
    threads: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "n_dims", "n_examples", "n_tasks", "seeds", "threads")
        check(self.test_tasks >= 2, f"test_tasks is {self.test_tasks}, must be at least 2: intervals are over tasks")
        learner = self.learner
        check(
            learner.algorithm == CONTEXT or learner.n_support == self.n_examples,
            f"learner.n_support is {learner.n_support}, must be n_examples, {self.n_examples}",
        )
        check(
            learner.algorithm == CONTEXT or learner.name != CONTEXT,
            f"learner.name is {CONTEXT!r}, which is that of the layer: give another one",
        )


class Experiment:
    """For each seed a layer of linear attention, and a linear network that learns in weights."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: dict[str, str] = {}  # none is read: functions are drawn
        n_numbers = (config.n_examples + 1) * (config.n_dims + 1)
        check_drawn(max(config.n_tasks, config.test_tasks, N_TUNING), n_numbers, "n_tasks", "n_examples", "n_dims")
        self.tasks = LinearFunctions(config.n_dims)
        self.layers: list[LinearAttention] = []
        self.in_weights: list[WeightLearner] = []
        self.loops: dict[str, OuterLoop] = {}
        for number in range(config.seeds):
            settings = replace(config.outer, seed=config.outer.seed + number)
            torch.manual_seed(settings.seed)
            layer = LinearAttention(config.n_dims)
            self.layers.append(layer)
            step = partial(self._step, layer)
            self.loops[f"{CONTEXT}_{number}"] = OuterLoop(dict(layer.named_parameters()), step, settings)
        for number in range(config.seeds if config.learner.algorithm != CONTEXT else 0):
            settings = replace(config.learner_outer, seed=config.learner_outer.seed + number)
            network = perceptron(config.n_dims, (), 1, seed=settings.seed)
            learner = WeightLearner(network, self.tasks, mse_loss, config.learner, n_iterations=settings.n_iterations)
            self.in_weights.append(learner)
            self.loops[f"{config.learner.name}_{number}"] = OuterLoop(
                learner.start.named(), learner.step, settings, way_out=WAY_OUT
            )
        self.sizes = tuned_steps(*as_sequences(self._unseen("tuning", N_TUNING)))
        self.watched = self._unseen("watched", N_WATCHED)

    def watch(self, name: str) -> Mapping[str, float]:
        """Return how a layer compares with the gradient step on unseen tasks.

        `error` is the layer's squared error, `excess` what it has more than the step's, as a share of that;
        `correlation` is between predictions, `difference` their mean squared difference over the variance of the
        step's.
        """
        names = [f"{CONTEXT}_{number}" for number in range(len(self.layers))]
        if name not in names:
            return {}
        ours, step = self._predicted(self.layers[names.index(name)], self.watched), self._by_step(self.watched)
        error, step_error = (_errors(predicted, self.watched).mean().item() for predicted in (ours, step))
        return {
            "error": error,
            "excess": error / step_error - 1,
            "correlation": torch.corrcoef(torch.stack([ours.flatten(), step.flatten()]))[0, 1].item(),
            "difference": ((ours - step).square().mean() / step.var()).item(),
        }

    def measure(self) -> Measured:
        """Return the squared errors on unseen functions, of which the gradient step is the best of its kind."""
        config = self.config
        unseen = self._unseen("test", config.test_tasks)
        alone = unseen[:1]
        n_examples = config.n_examples
        read = [self._predicted(layer, unseen) for layer in self.layers]
        flops = flops_of(partial(self._predicted, self.layers[0], alone))
        points = [point(_errors(predicted, unseen).tolist(), n_examples=n_examples, flops=flops) for predicted in read]
        training = training_flops(self.loops[f"{CONTEXT}_0"].step, n_iterations=config.outer.n_iterations)
        curves = [Curve(learner=CONTEXT, kind="context", points=(_over_seeds(points),), training_flops=training)]
        if self.in_weights:
            steps = [config.learner.n_steps]
            learned = [
                learner.curve(unseen, steps, n_examples=n_examples, at_once=AT_ONCE).points[0]
                for learner in self.in_weights
            ]
            training = training_flops(self.in_weights[0].step, n_iterations=config.learner_outer.n_iterations)
            name = config.learner.name
            curves.append(Curve(learner=name, kind="weights", points=(_over_seeds(learned),), training_flops=training))
        rules: dict[str, Rule] = {
            "one gradient step": partial(gradient_step, sizes=self.sizes),
            "least squares": least_squares,
            "predicting 0": zero,
        }
        for name, rule in rules.items():
            errors = _errors(rule(unseen.support_x, unseen.support_y, unseen.query_x[:, 0]), unseen)
            taken = partial(rule, alone.support_x, alone.support_y, alone.query_x[:, 0])
            counted = flops_of(taken) if name == "one gradient step" else None  # the others are no gradient steps
            kind = "bound" if name == "least squares" else "baseline"
            rule_point = point(errors.tolist(), n_examples=n_examples, flops=counted)
            curves.append(Curve(learner=name, kind=kind, points=(rule_point,)))
        return Measured(tasks="linear regression, one layer", quantity="squared error", curves=tuple(curves))

    def _step(self, layer: LinearAttention, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the squared error of the layer's prediction on fresh functions."""
        drawn = self.tasks.draw(self.config.n_tasks, self.config.n_examples, 1, generator)
        return OuterLoss(mse_loss(layer(drawn.support_x, drawn.support_y, drawn.query_x[:, 0]), drawn.query_y[:, 0]))

    def _unseen(self, use: str, n_tasks: int) -> Episodes:
        generator = torch.Generator().manual_seed(seed_of("meta step", use))
        return self.tasks.draw(n_tasks, self.config.n_examples, 1, generator)

    @torch.no_grad()
    def _predicted(self, layer: LinearAttention, episodes: Episodes) -> Float[Tensor, "N 1"]:
        return layer(episodes.support_x, episodes.support_y, episodes.query_x[:, 0])

    def _by_step(self, episodes: Episodes) -> Float[Tensor, "N 1"]:
        return gradient_step(episodes.support_x, episodes.support_y, episodes.query_x[:, 0], sizes=self.sizes)


def _errors(predicted: Float[Tensor, "N 1"], episodes: Episodes) -> Float[Tensor, " N"]:
    return squared_errors(predicted, episodes.query_y[:, 0])


def _over_seeds(points: Sequence[Point]) -> Point:
    """Return the mean over seeds with its interval; the point itself, with its interval over tasks, of one seed."""
    first = points[0]
    if len(points) == 1:
        return first
    return point([seed.mean for seed in points], n_examples=first.n_examples, n_steps=first.n_steps, flops=first.flops)
