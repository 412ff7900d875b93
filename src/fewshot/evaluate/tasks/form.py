"""A task's form under one protocol: how its questions are written and judged. Each task's file has a table of them.

`FORMS = {GPT3: Form(...), HARNESS: Form(...)}` shows side by side how the paper's prompts and the harness's differ.
`form_of` looks up a form once, and the form makes the task. Knows no task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot.base.errors import BadValue
from fewshot.evaluate.data.splits import Splits
from fewshot.evaluate.example import DrawEpisodes, Example
from fewshot.evaluate.metrics.metric import Metric, accuracy
from fewshot.evaluate.protocol import HARNESS, EvalProtocol
from fewshot.evaluate.task import Task, TaskKind

ACCURACY = (accuracy("token"),)  # the paper's, by nats a token
ACC = (accuracy("sum", name="acc"),)  # the harness's, by the sum of nats
ACC_AND_NORM = (*ACC, accuracy("character", name="acc_norm"))


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a task is written and judged under one protocol; fields that `Task` has too mean the same as there."""

    metrics: tuple[Metric, ...]
    read: Callable[..., Any] = lambda examples: examples  # a file, or what is in it, into examples or passages
    kind: TaskKind = "choose"
    episodes: Callable[[str, Splits], DrawEpisodes] | None = None  # where not drawn as `Splits.episodes` does
    uses_training: bool = True  # demonstrations come from a training set, where there is one
    description: str = ""
    delimiter: str = "\n\n"
    default_shots: int = 0
    answer_context: str | None = None
    stop: tuple[str, ...] = ("\n",)
    max_answer_tokens: int = 32
    chance: float | Callable[[Sequence[Example]], float] | None = None  # or how it is computed from the questions
    notes: tuple[str, ...] = ()

    def task(self, name: str, protocol: EvalProtocol, splits: Splits, **constant: Any) -> Task:
        """Return the task in this form; `constant` holds the fields of `Task` that are the same in every form."""
        fields: dict[str, Any] = {
            "source": splits.source(protocol),
            "dev": splits.dev_episodes(name, protocol),
            "description": self.description,
            "delimiter": self.delimiter,
            "default_shots": self.default_shots,
            "answer_context": self.answer_context,
            "stop": self.stop,
            "max_answer_tokens": self.max_answer_tokens,
            "chance": self.chance(splits.evaluated.examples) if callable(self.chance) else self.chance,
            "notes": self.notes,
            **constant,
        }
        episodes = self.episodes(name, splits) if self.episodes else splits.episodes(name, protocol)
        return Task(name=name, protocol=protocol, kind=self.kind, metrics=self.metrics, episodes=episodes, **fields)


def form_of(name: str, forms: Mapping[EvalProtocol, Form], protocol: EvalProtocol) -> Form:
    """Return the form of the task under that protocol; raise BadValue where the harness does not have the task."""
    if protocol not in forms:
        refuse_harness(name, protocol)
    return forms[protocol]


def refuse_harness(name: str, protocol: EvalProtocol) -> None:
    """Raise BadValue under lm-eval's protocol, for a task that the harness does not have."""
    if protocol is HARNESS:
        raise BadValue(f"{name} is no task of lm-evaluation-harness 0.4.13: use --protocol gpt3")
