"""Learners in context and a learner in weights on the same functions. In: tasks of pairs (x, y), settings. Out: curves.

Kinds whose x and y are numbers share it. Such a kind says what its functions are, what its learners minimise, how
answers are judged and what stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.base.errors import check, check_counts
from fewshot.meta.curves import Curve, Point
from fewshot.meta.episodes import Episodes, Tasks, check_drawn, unseen
from fewshot.meta.flops import training_facts
from fewshot.meta.learners.in_context import ContextModelConfig, PairModel, as_sequences, points_by_examples
from fewshot.meta.learners.maml import LossFunction
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss

CONTEXT = "context"
AT_ONCE = 1000  # unseen tasks in memory at a time
N_QUERY = 10  # queries of an unseen task for the learner in weights
N_WATCHED = 500  # tasks whose figures are logged in training


class Settings(Protocol):
    """What the configuration of such a kind has, beside what says which functions they are."""

    @property
    def n_examples(self) -> int:
        """The most that a learner is tested with."""

    @property
    def n_beyond(self) -> int:
        """More of them in training in context."""

    @property
    def n_tasks(self) -> int:
        """Tasks of one iteration of training in context."""

    @property
    def readers(self) -> Mapping[str, ContextModelConfig]:
        """The models that learn in context, by the names of their curves and loops."""

    @property
    def outer(self) -> OuterConfig:
        """The outer loop in context."""

    @property
    def learner(self) -> LearnerConfig:
        """The learner in weights; one whose algorithm is context is none."""

    @property
    def learner_outer(self) -> OuterConfig:
        """The outer loop in weights."""

    @property
    def widths(self) -> tuple[int, ...]:
        """The layers of the perceptron that learns in weights."""

    @property
    def test_tasks(self) -> int:
        """Unseen tasks of the test."""

    @property
    def test_steps(self) -> tuple[int, ...]:
        """Gradient steps of the learner in weights."""


def check_settings(config: Settings) -> None:
    """Raise BadValue if settings do not fit together."""
    check_counts(config, "n_examples", "n_tasks", "seeds", "threads")
    check(config.n_beyond >= 0, f"n_beyond is {config.n_beyond}, must be at least 0")
    check(config.test_tasks >= 2, f"test_tasks is {config.test_tasks}, must be at least 2: intervals are over tasks")
    check(
        bool(config.test_steps) and min(config.test_steps) >= 1,
        f"test_steps is {list(config.test_steps)}, must hold numbers of gradient steps from 1 on",
    )
    if config.learner.algorithm == CONTEXT:
        check(bool(config.readers), "nothing is left to learn: give a reader, or a learner in weights")
        return
    check(
        config.learner.n_support <= config.n_examples,
        f"learner.n_support is {config.learner.n_support}, must be at most n_examples, {config.n_examples}",
    )
    check(
        config.learner.name not in {CONTEXT, *config.readers},
        f"learner.name is {config.learner.name!r}, which is that of the learner in context: give another one",
    )


@dataclass(frozen=True)
class Judge:
    """A quantity by which answers are judged."""

    quantity: str
    is_share: bool  # of answers that are right, so more is better
    of: Callable[[Tensor, Tensor], Tensor]  # from predictions and y, both [... K Y], to [... K]


class FunctionLearners:
    """Readers and a learner in weights, trained on `tasks` with the `seed`-th of several seeds.

    `kind` names the random numbers of the test. `reading_loss` is of predictions at all places of many sequences,
    `loss` of the learner in weights' predictions of one task's queries.
    """

    def __init__(
        self,
        config: Settings,
        tasks: Tasks,
        *,
        kind: str,
        d_x: int,
        judges: Sequence[Judge],
        reading_loss: LossFunction,
        loss: LossFunction,
        seed: int,
    ) -> None:
        self.config, self.tasks, self.kind, self.seed = config, tasks, kind, seed
        self.judges, self.reading_loss = judges, reading_loss
        n_numbers = (config.n_examples + config.n_beyond + N_QUERY) * (d_x + 1)
        check_drawn(config.test_tasks, n_numbers, "test_tasks", "n_examples")
        check_drawn(config.n_tasks, n_numbers, "n_tasks", "n_examples")
        self.loops: dict[str, OuterLoop] = {}
        self.readers: dict[str, PairModel] = {}
        outer = replace(config.outer, seed=config.outer.seed + seed)
        for name, reader in config.readers.items():
            torch.manual_seed(outer.seed)
            model = PairModel(reader, d_x=d_x, n_pairs=config.n_examples + config.n_beyond + 1)
            self.readers[name] = model
            self.loops[name] = OuterLoop(dict(model.named_parameters()), partial(self._step, model), outer)
        self.in_weights: WeightLearner | None = None
        if config.learner.algorithm != CONTEXT:
            outer = replace(config.learner_outer, seed=config.learner_outer.seed + seed)
            network = perceptron(d_x, config.widths, 1, seed=outer.seed)
            self.in_weights = WeightLearner(network, tasks, loss, config.learner, n_iterations=outer.n_iterations)
            start = self.in_weights.start.named()
            self.loops[config.learner.name] = OuterLoop(
                start, self.in_weights.step, outer, way_out="lower learner.step_size or learner_outer.lr"
            )
        self._watched = self.unseen(tasks, "watched", N_WATCHED, n_query=1)

    @torch.no_grad()
    def watch(self, name: str, figure: str) -> Mapping[str, float]:
        """Return how a reader is judged on a few tasks as in training after no example, half of them and all.

        The names are those of `figure` with the number of examples.
        """
        if name not in self.readers:
            return {}
        x, y = self.sequences(self._watched)
        judged = self.judges[0].of(self.readers[name](x, y), y).mean(0)
        n = self.config.n_examples
        return {f"{figure}_{k}": judged[k].item() for k in sorted({0, n // 2, n})}

    def unseen(self, tasks: Tasks, what: str, n_tasks: int, *, n_query: int = N_QUERY) -> Episodes:
        """Return tasks of a test, the same for the same `what`."""
        return tasks.draw(n_tasks, self.config.n_examples, n_query, unseen(self.kind, what, seed=self.seed))

    def sequences(self, episodes: Episodes) -> tuple[Float[Tensor, "N K X"], Float[Tensor, "N K Y"]]:
        """Return the examples and one query of each task."""
        places = slice(self.config.n_examples + 1)
        x, y = as_sequences(episodes)
        return x[:, places], y[:, places]

    def curves(self, drawn: Episodes) -> list[Curve]:
        """Return the curves of all learners that an outer loop trains, on tasks with `N_QUERY` queries each."""
        return [*self._in_context(drawn), *self._by_steps(drawn)]

    def judged(
        self,
        learner: str,
        kind: str,
        predicted: Float[Tensor, "N K Y"],
        y: Float[Tensor, "N K Y"],
        answer: Callable[[int], object] | None = None,
    ) -> list[Curve]:
        """Return a curve of predictions by each judge; `answer` is as in `points_by_examples`."""
        return [
            self._curve(
                judge,
                learner,
                kind,
                points_by_examples(judge.of(predicted, y), range(y.shape[1]), answer, is_share=judge.is_share),
            )
            for judge in self.judges
        ]

    def with_facts(self, curves: Sequence[Curve]) -> tuple[Curve, ...]:
        """Return curves with what is known of their training; the last thing to do, as it can change a learner."""
        facts = {name: training_facts(loop) for name, loop in self.loops.items()}
        return tuple(replace(curve, **facts.get(curve.learner, {})) for curve in curves)

    def _step(self, model: PairModel, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the loss in context on drawn functions, over every y of each."""
        config = self.config
        x, y = as_sequences(self.tasks.draw(config.n_tasks, config.n_examples + config.n_beyond, 1, generator))
        return OuterLoss(self.reading_loss(model(x, y), y))

    @torch.no_grad()
    def _in_context(self, drawn: Episodes) -> list[Curve]:
        curves = []
        x, y = self.sequences(drawn)
        for name, model in self.readers.items():
            predicted = torch.cat([model(*self.sequences(part)) for part in drawn.split(AT_ONCE)])

            def read_once(k: int, model: PairModel = model) -> Tensor:
                return model(x[:1, : k + 1], y[:1, : k + 1])

            curves += self.judged(name, "context", predicted, y, read_once)
        return curves

    def _by_steps(self, drawn: Episodes) -> list[Curve]:
        """Return the curves of the learner in weights: without examples, and with as many as in training or more.

        With fewer examples, steps of the size that it was trained with can lead anywhere, and means over tasks say
        nothing.
        """
        learner, config = self.in_weights, self.config
        if learner is None:
            return []

        def points_with(judge: Judge, k: int, steps: Sequence[int]) -> tuple[Point, ...]:
            part = replace(drawn, support_x=drawn.support_x[:, :k], support_y=drawn.support_y[:, :k])

            def mean(predicted: Tensor, y: Tensor) -> Tensor:
                return judge.of(predicted, y).mean()

            return learner.curve(part, steps, n_examples=k, judge=mean, at_once=AT_ONCE, is_share=judge.is_share).points

        curves = []
        for judge in self.judges:
            points = [replace(point, n_examples=0) for point in points_with(judge, 1, [0])]
            for k in range(config.learner.n_support, config.n_examples + 1):
                points += points_with(judge, k, config.test_steps)
            curves.append(self._curve(judge, config.learner.name, "weights", tuple(points)))
        return curves

    def _curve(self, judge: Judge, learner: str, kind: str, points: tuple[Point, ...]) -> Curve:
        quantity = judge.quantity if len(self.judges) > 1 else ""  # the only one is the result's
        return Curve(learner=learner, kind=kind, points=points, quantity=quantity, more_is_better=judge.is_share)
