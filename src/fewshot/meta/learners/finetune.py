"""Fine-tuning on a few examples of one task, its settings chosen on other tasks. In: a module, episodes. Out: settings.

It is the inner loop from weights that no outer loop prepared. The size and number of its steps are chosen on validation
tasks by the metric of the test, so that nothing of the test is known. Knows no text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from fewshot.base.errors import Diverged, check
from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.maml import InnerLoop, LossFunction, judge_adapted, start_of


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """The settings to try; the best on the validation tasks are taken, of equals those with the fewest steps."""

    sgd: tuple[float, ...] = (0.03, 0.1)  # step sizes; [] tries no SGD
    adam: tuple[float, ...] = (3e-4, 1e-3, 3e-3)  # without momentum, as Reptile's inner loop has it
    steps: tuple[int, ...] = (1, 2, 5, 10, 20, 40)
    tasks: int = 24  # for validation, of each family

    def __post_init__(self) -> None:
        check(bool(self.sgd or self.adam), "finetune has neither sgd nor adam: give a step size for one")
        check(
            bool(self.steps) and min(self.steps) >= 1, f"finetune.steps is {list(self.steps)}, must be 1 or more each"
        )
        check(self.tasks >= 1, f"finetune.tasks is {self.tasks}, must be at least 1")
        list(self.inner_loops())

    def inner_loops(self) -> Iterator[InnerLoop]:
        """Yield an inner loop for every optimizer and step size."""
        for optimizer, sizes in (("sgd", self.sgd), ("adam", self.adam)):
            for size in sizes:
                yield InnerLoop(step_size=size, optimizer=optimizer, second_order=False)


@dataclass(frozen=True, kw_only=True)
class ChosenSettings:
    """The settings that were best on the validation tasks."""

    inner: InnerLoop
    n_steps: int
    value: float  # of the metric on the validation tasks

    def __str__(self) -> str:
        return f"{self.inner.optimizer} {self.inner.step_size:g} x {self.n_steps}"


def choose_settings(
    module: nn.Module, episodes: Episodes, loss: LossFunction, judge: LossFunction, tried: FineTuning
) -> ChosenSettings:
    """Return the settings whose fine-tuned weights have the highest mean `judge` on the queries of the episodes.

    Settings with predictions that are not finite, on any task, are left out; raises Diverged if all are.
    """
    choices = []
    for inner in tried.inner_loops():
        values = judge_adapted(module, start_of(module), episodes, loss, judge, inner, tried.steps).mean(0)
        choices += [
            ChosenSettings(inner=inner, n_steps=n, value=value)
            for n, value in zip(tried.steps, values.tolist(), strict=True)
        ]
    choices = [choice for choice in choices if math.isfinite(choice.value)]
    if not choices:
        raise Diverged(
            "fine-tuning gives values that are not finite with every step size that is tried: lower finetune.sgd and "
            "finetune.adam, or finetune.steps"
        )
    return max(choices, key=lambda choice: (choice.value, -choice.n_steps))
