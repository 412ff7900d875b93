"""Results: the value of one metric of one task at one K, with its interval. In: answers. Out: plain values.

Knows neither models nor files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import NotFinite
from fewshot.base.log import note
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import n_questions
from fewshot.evaluate.metrics.metric import Metric
from fewshot.evaluate.prompt import Prompt
from fewshot.evaluate.task import Task

KEPT_SAMPLES = 3  # prompts and answers that a result keeps for the report


@dataclass(frozen=True)
class Sample:
    """One prompt with the model's answer and the right one."""

    prompt: str
    answer: str
    expected: str
    value: float | None  # of the task's main metric; 1.0 is right, for accuracy


@dataclass(frozen=True, kw_only=True)
class Result:
    """One metric of one task at one K; value and interval are None where every question was skipped."""

    task: str
    paper_name: str
    protocol: str
    metric: str
    share: bool  # a share of right answers, shown in per cent
    shots: int  # wanted
    shots_used: float  # mean of what fitted
    n: int  # questions answered
    n_skipped: int  # questions too long for the context even by themselves
    value: float | None
    low: float | None  # 95% interval
    high: float | None
    ideal: float | None  # what a learner who knows the family of tasks would reach on these questions
    chance: float | None
    seed: int
    source: str
    samples: tuple[Sample, ...] = ()
    questions: str = ""  # digest of the set of questions; formerly it was not stored
    variant: str = ""  # how the prompts were changed; the task's name says it too

    @property
    def n_asked(self) -> int:
        """Questions of the set, those that were too long among them."""
        return self.n + self.n_skipped

    @property
    def question_set(self) -> str:
        """What tells its set of questions from others: their digest, or what there is of a former result."""
        return self.questions or f"an unrecorded set of {self.n_asked:,} questions of {self.source}"

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return to_plain(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], *, where: str) -> Result:
        """Return the result that `to_json` gave, with finite numbers; `where` names its file in an error."""
        result = from_plain(cls, plain, where=where)
        for name in ("shots_used", "value", "low", "high", "ideal", "chance"):
            number = getattr(result, name)
            if number is not None and not math.isfinite(number):
                raise NotFinite(f"{where}: {name} of {result.task} is {number}: measure it again")
        return result


@dataclass(frozen=True)
class TaskAnswers:
    """All answers of one task at one K, in the order of its episodes."""

    task: Task
    shots: int
    seed: int
    answers: tuple[Answer, ...]
    prompts: tuple[Prompt, ...]
    ideals: tuple[float, ...]  # of the ideal learner, where the task knows it
    n_skipped: int
    questions: str = ""  # digest of the set that was asked

    @property
    def n_demonstrations(self) -> int:
        """Demonstrations that all prompts hold together."""
        return sum(answer.shots for answer in self.answers)

    def results(self) -> list[Result]:
        """Return one result for each metric of the task; samples are kept with the first."""
        return [self._result(metric, first=metric is self.task.metrics[0]) for metric in self.task.metrics]

    def _result(self, metric: Metric, *, first: bool) -> Result:
        value = metric.of(self.answers) if self.answers else math.nan
        if math.isinf(value):
            note(f"{self.task.name}: {metric.name} is too large for a number (over 709 nats per unit): none is given")
        low, high = map(_finite, metric.interval(self.answers, seed=self.seed)) if self.answers else (None, None)
        if low is None or high is None:
            low, high = None, None
        return Result(
            task=self.task.name,
            paper_name=self.task.paper_name,
            protocol=self.task.protocol.name,
            metric=metric.name,
            share=metric.share,
            shots=self.shots,
            shots_used=self.n_demonstrations / max(1, len(self.answers)),
            n=n_questions([answer.example for answer in self.answers]),
            n_skipped=self.n_skipped,
            value=_finite(value),
            low=low,
            high=high,
            ideal=sum(self.ideals) / len(self.ideals) if self.ideals and first else None,
            chance=self.task.chance if first else None,
            seed=self.seed,
            source=self.task.source,
            samples=self._samples(metric) if first else (),
            questions=self.questions,
            variant=self.task.variant,
        )

    def _samples(self, metric: Metric) -> tuple[Sample, ...]:
        """Return the first few prompts with what the model chose or wrote."""
        samples = []
        for answer, prompt in list(zip(self.answers, self.prompts, strict=True))[:KEPT_SAMPLES]:
            example = answer.example
            text = answer.text if self.task.kind == "complete" else example.completions[_sample_choice(answer, metric)]
            samples.append(Sample(prompt.text, text, example.completions[example.gold], _finite(metric.of([answer]))))
        return tuple(samples)


def too_long(answered: Sequence[TaskAnswers], n_ctx: int) -> list[str]:
    """Return a line for each task of which questions, or some demonstrations, do not fit into n_ctx tokens."""
    lines = []
    for task in dict.fromkeys((answers.task.name, answers.task.protocol.name) for answers in answered):
        own = [answers for answers in answered if (answers.task.name, answers.task.protocol.name) == task]
        skipped = max(own, key=lambda answers: answers.n_skipped)
        cut = [answers.shots for answers in own if answers.n_demonstrations < answers.shots * len(answers.answers)]
        if skipped.n_skipped:
            lines.append(
                f"{task[0]}: {skipped.n_skipped:,} of {skipped.n_skipped + len(skipped.answers):,} questions are not "
                f"measured: they are too long for the model's context of {n_ctx:,} tokens"
            )
        if cut:
            shots = ", ".join(f"K = {k}" for k in sorted(set(cut)))
            lines.append(
                f"{task[0]}: not all demonstrations of {shots} fit into {n_ctx:,} tokens; "
                "'K used' is the mean number that fits"
            )
    return lines


def _finite(value: float) -> float | None:
    """Return the value, or None where it is not finite, as a metric of questions none of which counts."""
    return value if math.isfinite(value) else None


def _sample_choice(answer: Answer, metric: Metric) -> int:
    """Return the completion that a sample shows: the chosen one, as the metric judges; else the gold one."""
    if len(answer.logprobs) < 2:
        return answer.example.gold
    return answer.choice(metric.normalisation)
