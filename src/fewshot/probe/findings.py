"""What was found in a model, as values. In: scores and accuracies. Out: plain values that a statement can name.

Knows neither tasks nor files: what a task is called and how well it is solved is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fewshot.model.gpt import GPT
from fewshot.probe.ablation import Head, ablated
from fewshot.probe.scores import HeadScores

SPARED = 0.05  # accuracy that a task may lose and still counts as solved without a head
COPIES = 0.5  # induction score from which a head is said to copy
NO_HEAD: Mapping[str, Any] = {"head": None, "task": None, "loss": 0.0, "loss_of_first_task": 0.0}


@dataclass(frozen=True, kw_only=True)
class TaskAblations:
    """One task solved by the whole model, and without each of some heads."""

    task: str
    shots: int
    n: int  # questions
    metric: str
    accuracy: float
    chance: float | None
    ablated: Mapping[Head, float]  # without this one head


@dataclass(frozen=True, kw_only=True)
class StepFindings:
    """One checkpoint of a run."""

    step: int
    heads: Sequence[HeadScores]
    accuracy: Mapping[str, float]  # by task
    distances: Mapping[str, float] = field(default_factory=dict)  # of predictions, by reader


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that was found."""

    model: str
    step: int
    scored_on: str  # which texts, in words
    heads: Sequence[HeadScores]
    tasks: Sequence[TaskAblations] = ()
    steps: Sequence[StepFindings] = ()

    @property
    def copying(self) -> HeadScores:
        """The head with the highest induction score."""
        return max(self.heads, key=lambda head: head.scores["induction"])

    @property
    def copies(self) -> bool:
        """Whether that head's score is high enough to say that it copies."""
        return self.copying.scores["induction"] >= COPIES

    @property
    def opposite(self) -> tuple[Head, TaskAblations] | None:
        """The head that a later task needs most of those that the first task does without, and that task.

        None where the later tasks do without all of these heads too.
        """
        if len(self.tasks) < 2:
            return None
        first, *others = self.tasks
        spared = [head for head, accuracy in first.ablated.items() if accuracy > first.accuracy - SPARED]
        losses = [(task.accuracy - task.ablated[head], head, task) for task in others for head in spared]
        loss, head, task = max(losses, key=lambda loss: loss[0], default=(0.0, Head(0, 0), first))
        return (head, task) if loss > SPARED else None

    def rise(self, values: Sequence[float]) -> int | None:
        """Return the first step at which a value is at least half of its highest one; None without steps."""
        goal = max(values, default=0.0) / 2
        return next((step.step for step, value in zip(self.steps, values, strict=True) if value >= goal), None)

    def copying_by_step(self) -> list[float]:
        """Return the induction score of the copying head at each step."""
        head = self.copying.head
        return [scored.scores["induction"] for step in self.steps for scored in step.heads if scored.head == head]

    def accuracy_by_step(self, task: TaskAblations) -> list[float]:
        """Return the accuracy of a task at each step."""
        return [step.accuracy[task.task] for step in self.steps]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        copying, opposite = self.copying, self.opposite
        rise = self.rise(self.copying_by_step())
        tasks = [self._plain_task(task) for task in self.tasks]
        losses = [
            task["loss_without_copying_head"] for task in tasks[1:] if task["loss_without_copying_head"] is not None
        ]
        together = None if rise is None or not tasks else abs(tasks[0]["rises_at_step"] - rise)
        plain: dict[str, Any] = {
            "model": self.model,
            "step": self.step,
            "scored_on": self.scored_on,
            "heads": [plain_scores(head) for head in self.heads],
            "copying_head": plain_scores(copying)
            | {
                "rises_at_step": rise,
                "steps_between_rises": together,  # of its score, and of the first task's accuracy
                "least_loss_of_later_tasks": min(losses, default=None),  # without it
            },
            "opposite_head": dict(NO_HEAD),
            "tasks": tasks,
            "steps": [
                {
                    "step": step.step,
                    "heads": [plain_scores(head) for head in step.heads],
                    "accuracy": dict(step.accuracy),
                    "distances": dict(step.distances),
                }
                for step in self.steps
            ],
        }
        if opposite is not None:
            head, task = opposite
            plain["opposite_head"] = {
                "head": str(head),
                "task": task.task,
                "loss": task.accuracy - task.ablated[head],
                "loss_of_first_task": self.tasks[0].accuracy - self.tasks[0].ablated[head],
            }
        return plain

    def _plain_task(self, task: TaskAblations) -> dict[str, Any]:
        without = task.ablated.get(self.copying.head)
        return {
            "task": task.task,
            "shots": task.shots,
            "n": task.n,
            "metric": task.metric,
            "accuracy": task.accuracy,
            "chance": task.chance,
            "ablated": {str(head): accuracy for head, accuracy in task.ablated.items()},
            "without_copying_head": without,
            "loss_without_copying_head": None if without is None else task.accuracy - without,
            "rises_at_step": self.rise(self.accuracy_by_step(task)),
        }


def plain_scores(head: HeadScores) -> dict[str, Any]:
    """Return a head's scores as plain values."""
    named = {"head": str(head.head), "layer": head.head.layer, "pattern": head.pattern}
    return named | dict(head.scores) | {"chance": dict(head.chance)}


def ablate_each(
    model: GPT,
    heads: Sequence[Head],
    means: Sequence[Float[Tensor, "H K"]],
    accuracy: Callable[[], float],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Head, float]:
    """Return what `accuracy` says of the model without each of the heads, which gives its mean instead."""
    without = {}
    for done, head in enumerate(heads):
        on_progress(done, len(heads))
        with ablated(model, [head], means):
            without[head] = accuracy()
    return without
