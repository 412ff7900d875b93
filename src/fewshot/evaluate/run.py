"""In-context evaluation, with no gradient update. In: a model, a tokenizer, a task. Out: one `Result` a measure and K.

Refuses to know the command line and where results are kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from fewshot.base.config import from_plain, to_plain
from fewshot.base.dist import gather, n_ranks, rank
from fewshot.base.errors import BadValue, NotFinite, check
from fewshot.base.log import note
from fewshot.evaluate.metrics.metric import Answer, Metric
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.evaluate.prompt import Prompt, build_prompt
from fewshot.evaluate.scoring.answerer import Answerer
from fewshot.evaluate.task import Episode, Task, n_questions
from fewshot.tokenizer.vocab import Tokenizer

KEPT_SAMPLES = 3  # prompts and answers that a result keeps for the report
BATCHES_AT_ONCE = 8  # prompts of so many batches are planned and sorted together


@runtime_checkable
class Store(Protocol):
    """Where answers are kept as they come."""

    def add(self, task: Task, answers: Sequence[tuple[Prompt, Answer]]) -> None:
        """Keep answers."""
        ...

    def get(self, task: Task, prompt: Prompt) -> Answer | None:
        """Return the answer to the prompt, if it is there."""
        ...


@dataclass(frozen=True)
class Sample:
    """One prompt and what the model made of it."""

    prompt: str
    answer: str
    expected: str
    value: float | None  # of the task's main measure; 1.0 is right, for accuracy


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measure of one task at one K; value and interval are None where every question was skipped."""

    task: str
    paper_name: str
    protocol: str
    metric: str
    share: bool  # a share of right answers, shown in per cent
    shots: int  # asked for
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
class Answered:
    """All answers of one task at one K, in the order of its episodes."""

    task: Task
    shots: int
    seed: int
    answers: tuple[Answer, ...]
    prompts: tuple[Prompt, ...]
    ideals: tuple[float, ...]  # of the ideal learner, where the task knows it
    n_skipped: int
    questions: str = ""  # digest of the set that was asked

    def results(self) -> list[Result]:
        """Return one result a measure of the task; samples are kept with the first."""
        return [self._result(metric, first=metric is self.task.metrics[0]) for metric in self.task.metrics]

    def _result(self, metric: Metric, *, first: bool) -> Result:
        value = metric.of(self.answers) if self.answers else math.nan
        if math.isinf(value):
            note(f"{self.task.name}: {metric.name} is too large for a number, as a unit costs more than 709 nats")
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
            shots_used=sum(answer.shots for answer in self.answers) / max(1, len(self.answers)),
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
        )

    def _samples(self, metric: Metric) -> tuple[Sample, ...]:
        """Return the first few prompts with what the model chose or wrote."""
        samples = []
        for answer, prompt in list(zip(self.answers, self.prompts, strict=True))[:KEPT_SAMPLES]:
            example = answer.example
            text = answer.text if self.task.kind == "complete" else example.completions[_shown(answer, metric)]
            samples.append(Sample(prompt.text, text, example.completions[example.gold], _finite(metric.of([answer]))))
        return tuple(samples)


def _finite(value: float) -> float | None:
    """None for what is no number: a measure of questions none of which counts."""
    return value if math.isfinite(value) else None


def _shown(answer: Answer, metric: Metric) -> int:
    """Return the completion that a sample shows: the chosen one, as the measure judges; else the gold one."""
    if len(answer.logprobs) < 2:
        return answer.example.gold
    return answer.choice(metric.normalisation)


def evaluate(
    lm: LanguageModel,
    tokenizer: Tokenizer,
    task: Task,
    *,
    shots: Sequence[int],
    limit: int,
    seed: int,
    batch_size: int = 32,
    store: Store | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answered]:
    """Return answers for every K in `shots`, over at most `limit` questions, the same ones for every K.

    All K of a question are read together, so that what their prompts share is read once. `on_progress(done, total)`
    counts questions. A question that does not fit the context is counted as skipped; a demonstration that does not
    fit is left out. With `store`, answers are kept as they come and those that are there are not asked again. Under
    torchrun the processes share the questions, each with a store of its own, and all get all answers.
    Source: Brown et al. 2020, section 2.4.
    """
    check(len(shots) > 0 and min(shots) >= 0, f"shots are {list(shots)}: give one or more numbers from 0 up")
    answerer = Answerer(lm, tokenizer, batch_size=batch_size)
    by_shots = {k: task.episodes(limit, k, seed) for k in shots}
    n = len(by_shots[shots[0]])
    slab = max(1, min(batch_size * BATCHES_AT_ONCE // len(shots), -(-n // n_ranks())))
    found: dict[tuple[int, int], Answer] = {}
    prompts: dict[tuple[int, int], Prompt] = {}
    for number, first in enumerate(range(0, n, slab)):
        if number % n_ranks() == rank():
            places = [(k, at) for at in range(first, min(first + slab, n)) for k in shots]
            built = {(k, at): build_prompt(tokenizer, task, by_shots[k][at], shots=k, n_ctx=lm.n_ctx)
                     for k, at in places}  # fmt: skip
            fitting = {place: prompt for place, prompt in built.items() if prompt is not None}
            prompts |= fitting
            found |= _answer(answerer, task, fitting, store)
        if on_progress is not None:
            on_progress(len(shots) * min(first + slab, n), len(shots) * n)
    for part in gather((found, prompts)):
        found, prompts = {**part[0], **found}, {**part[1], **prompts}
    questions = digest_of_set(task, limit)
    return [_together(task, k, seed, by_shots[k], found, prompts, questions) for k in shots]


def digest_of_set(task: Task, limit: int) -> str:
    """Return what tells one set of questions from another: contexts, completions, right answers, demonstrations.

    It is the same for all K and seeds, so that these belong together: of demonstrations, and of a made task that asks
    others for another seed, it has what seed 0 gives.
    """
    try:
        episodes = task.episodes(limit, 1, 0)
    except BadValue:  # there are none
        episodes = task.episodes(limit, 0, 0)
    digest = hashlib.blake2b(digest_size=8)
    for one in episodes:
        asked = one.example
        shown = [demonstration.demonstration for demonstration in one.demonstrations]
        content = (asked.context, asked.contexts, asked.completions, asked.gold, asked.also_right, shown)
        digest.update(repr(content).encode())
    return digest.hexdigest()


def _answer(
    answerer: Answerer, task: Task, prompts: Mapping[tuple[int, int], Prompt], store: Store | None
) -> dict[tuple[int, int], Answer]:
    """Return answers by (K, place), from the store where it has them."""
    stored = {place: store.get(task, prompt) for place, prompt in prompts.items()} if store else {}
    known = {place: answer for place, answer in stored.items() if answer is not None}
    asked = {place: prompt for place, prompt in prompts.items() if place not in known}
    answers = answerer.answers(task, list(asked.values())) if asked else []
    if store and asked:
        store.add(task, list(zip(asked.values(), answers, strict=True)))
    return known | dict(zip(asked, answers, strict=True))


def _together(
    task: Task,
    k: int,
    seed: int,
    episodes: Sequence[Episode],
    found: Mapping[tuple[int, int], Answer],
    prompts: Mapping[tuple[int, int], Prompt],
    questions: str,
) -> Answered:
    """Return the answers of one K in the order of the episodes."""
    absent = {one.example.group for at, one in enumerate(episodes) if (k, at) not in found} - {""}
    places = [at for at, one in enumerate(episodes) if (k, at) in found and one.example.group not in absent]
    ideals = [(episodes[at].ideal, prompts[k, at].shots) for at in places]
    return Answered(
        task=task,
        shots=k,
        seed=seed,
        answers=tuple(found[k, at] for at in places),
        prompts=tuple(prompts[k, at] for at in places),
        ideals=tuple(ideal[shots] for ideal, shots in ideals if ideal is not None),
        n_skipped=n_questions([one.example for one in episodes]) - n_questions([episodes[at].example for at in places]),
        questions=questions,
    )
