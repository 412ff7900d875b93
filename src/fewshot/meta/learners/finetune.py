"""Fine-tuning on a few examples of one task, its settings chosen on other tasks. In: a module, episodes. Out: a choice.

It is the inner loop from weights that no outer loop prepared. How large its steps are, and how many, is chosen on tasks
of training rules by what is measured at the end, so that nothing of the test is known. Knows no text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from fewshot.base.errors import Diverged, check
from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.maml import InnerLoop, Loss, adapted, start_of


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What is tried; the best on the validation tasks is taken, of equals the one with the fewest steps."""

    sgd: tuple[float, ...] = (0.03, 0.1)  # step sizes; none: SGD is not tried
    adam: tuple[float, ...] = (3e-4, 1e-3, 3e-3)  # without momentum, as Reptile's inner loop has it
    steps: tuple[int, ...] = (1, 2, 5, 10, 20, 40)
    tasks: int = 24  # of each family, for validation

    def __post_init__(self) -> None:
        check(bool(self.sgd or self.adam), "finetune has neither sgd nor adam: give a step size for one")
        check(
            bool(self.steps) and min(self.steps) >= 1, f"finetune.steps is {list(self.steps)}, must be 1 or more each"
        )
        check(self.tasks >= 1, f"finetune.tasks is {self.tasks}, must be at least 1")
        list(self.inner_loops())

    def inner_loops(self) -> Iterator[InnerLoop]:
        """Yield every optimizer with each of its step sizes."""
        for optimizer, sizes in (("sgd", self.sgd), ("adam", self.adam)):
            for size in sizes:
                yield InnerLoop(step_size=size, optimizer=optimizer, second_order=False)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings that did best on the validation tasks."""

    inner: InnerLoop
    n_steps: int
    value: float  # on the validation tasks

    def __str__(self) -> str:
        return f"{self.inner.optimizer} {self.inner.step_size:g} x {self.n_steps}"


def choose_settings(module: nn.Module, episodes: Episodes, loss: Loss, judge: Loss, tried: FineTuning) -> Choice:
    """Return the settings whose fine-tuned weights have the highest mean `judge` on the episodes' queries.

    Settings that lead a task to predictions that are not finite are passed over; raises Diverged if all do.
    """
    choices = []
    for inner in tried.inner_loops():
        values = adapted(module, start_of(module), episodes, loss, judge, inner, tried.steps).mean(0)
        choices += [
            Choice(inner=inner, n_steps=n, value=value) for n, value in zip(tried.steps, values.tolist(), strict=True)
        ]
    choices = [choice for choice in choices if math.isfinite(choice.value)]
    if not choices:
        raise Diverged(
            "fine-tuning leads to what is no number with every step size that is tried: lower finetune.sgd and "
            "finetune.adam, or finetune.steps"
        )
    return max(choices, key=lambda choice: (choice.value, -choice.n_steps))
