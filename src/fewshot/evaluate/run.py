"""In-context evaluation, with no gradient update. In: a model, a tokenizer, a task. Out: one `Result` a measure and K.

Refuses to know files and the command line.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import check
from fewshot.evaluate.metrics import accuracy, bootstrap_interval, perplexity, wilson_interval
from fewshot.evaluate.prompt import Prompt, build_prompt, span
from fewshot.evaluate.score import normalise, score
from fewshot.evaluate.task import Episode, Task
from fewshot.generate.complete import complete
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

KEPT_SAMPLES = 3  # prompts and answers that a result keeps for the report
BATCHES_AT_ONCE = 8  # prompts of so many batches are sorted by length together


@dataclass(frozen=True)
class Sample:
    """One prompt and what the model made of it."""

    prompt: str
    answer: str
    expected: str
    value: float  # 1.0 is right, for accuracy


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measure of one task at one K; value and interval are None where every question was skipped."""

    task: str
    paper_name: str
    kind: str  # choose, complete or perplexity
    metric: str  # accuracy, perplexity (per word), or what the task's judge measures
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
    seconds: float
    source: str
    samples: tuple[Sample, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return to_plain(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], *, where: str) -> Result:
        """The result that `to_json` gave; `where` names its file in an error."""
        return from_plain(cls, plain, where=where)


@dataclass(frozen=True)
class _Outcome:
    """What one question gave."""

    value: float
    answer: str
    logprob: float = 0.0  # nats of the scored text, for perplexity
    n_words: int = 0


def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    task: Task,
    *,
    shots: Sequence[int],
    limit: int,
    seed: int,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Results for every K in `shots`, over at most `limit` questions, the same ones for every K.

    `on_progress(done, total)` counts questions. A question that does not fit the context is counted as skipped; a
    demonstration that does not fit is left out, which `shots_used` shows. Source: Brown et al. 2020, section 2.4.
    """
    check(len(shots) > 0 and min(shots) >= 0, f"shots are {list(shots)}: give one or more numbers from 0 up")
    episodes = task.episodes(limit, max(shots), seed)
    total = len(shots) * len(episodes)
    slab = batch_size * BATCHES_AT_ONCE
    results: list[Result] = []
    was_training = model.training
    model.eval()
    try:
        for turn, k in enumerate(shots):
            started = time.perf_counter()
            answered: list[tuple[Episode, Prompt, _Outcome]] = []
            for first in range(0, len(episodes), slab):
                part = episodes[first : first + slab]
                built = [build_prompt(tokenizer, task, one, shots=k, n_ctx=model.config.n_ctx) for one in part]
                fitting = [(one, prompt) for one, prompt in zip(part, built, strict=True) if prompt is not None]
                outcomes = _ANSWER[task.kind](model, tokenizer, task, [prompt for _, prompt in fitting], batch_size)
                answered += [(*pair, outcome) for pair, outcome in zip(fitting, outcomes, strict=True)]
                if on_progress is not None:
                    on_progress(turn * len(episodes) + first + len(part), total)
            seconds = time.perf_counter() - started
            results += _summarise(task, k, answered, len(episodes) - len(answered), seed, seconds)
    finally:
        model.train(was_training)
    return results


def _choose(model: GPT, tokenizer: Tokenizer, task: Task, prompts: Sequence[Prompt], batch_size: int) -> list[_Outcome]:
    """The likeliest completion of each prompt, after normalisation."""
    scores = iter(score(model, [one for prompt in prompts for one in prompt.spans], batch_size=batch_size))
    completions = [completion for prompt in prompts for completion in prompt.example.completions]
    if task.normalisation == "unconditional":
        alone = [span(tokenizer, task.answer_context, text, (tokenizer.eot,)) for text in completions]
        unconditional = iter(score(model, alone, batch_size=batch_size))
        values = iter([normalise(one, task.normalisation, next(unconditional)) for one in scores])
    else:
        values = iter([normalise(one, task.normalisation) for one in scores])
    outcomes = []
    for prompt in prompts:
        of_choices = [next(values) for _ in prompt.spans]
        best = of_choices.index(max(of_choices))
        outcomes.append(_Outcome(float(best == prompt.example.gold), prompt.example.completions[best]))
    return outcomes


def _complete(
    model: GPT, tokenizer: Tokenizer, task: Task, prompts: Sequence[Prompt], batch_size: int
) -> list[_Outcome]:
    """The greedy answer to each prompt, judged."""
    answers = complete(
        model,
        tokenizer,
        [prompt.tokens for prompt in prompts],
        max_tokens=task.max_answer_tokens,
        stop=task.stop,
        batch_size=batch_size,
    )
    return [
        _Outcome(task.judge(answer.text, prompt.example.completions), answer.text)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _perplexity(
    model: GPT, tokenizer: Tokenizer, task: Task, prompts: Sequence[Prompt], batch_size: int
) -> list[_Outcome]:
    """The log-probability of each gold completion, and whether greedy decoding would have written it."""
    scores = score(model, [prompt.spans[prompt.example.gold] for prompt in prompts], batch_size=batch_size)
    return [
        _Outcome(float(one.greedy), text, one.logprob, len(text.split()))
        for one, text in zip(
            scores, (prompt.example.completions[prompt.example.gold] for prompt in prompts), strict=True
        )
    ]


_ANSWER = {"choose": _choose, "complete": _complete, "perplexity": _perplexity}


def _summarise(
    task: Task,
    k: int,
    answered: Sequence[tuple[Episode, Prompt, _Outcome]],
    n_skipped: int,
    seed: int,
    seconds: float,
) -> list[Result]:
    """The measures of one K: one, or accuracy and perplexity."""
    outcomes = [outcome for *_, outcome in answered]
    ideals = [episode.ideal[prompt.shots] for episode, prompt, _ in answered if episode.ideal is not None]
    metric = task.metric if task.kind == "complete" else "accuracy"
    samples = tuple(
        Sample(prompt.text, outcome.answer, prompt.example.completions[prompt.example.gold], outcome.value)
        for _, prompt, outcome in answered[:KEPT_SAMPLES]
    )
    first = Result(
        task=task.name,
        paper_name=task.paper_name,
        kind=task.kind,
        metric=metric,
        shots=k,
        shots_used=sum(prompt.shots for _, prompt, _ in answered) / max(1, len(answered)),
        n=len(answered),
        n_skipped=n_skipped,
        value=None,
        low=None,
        high=None,
        ideal=sum(ideals) / len(ideals) if ideals else None,
        chance=task.chance,
        seed=seed,
        seconds=seconds,
        source=task.source,
        samples=samples,
    )
    if not outcomes:
        return [first]
    values = [outcome.value for outcome in outcomes]
    if metric == "accuracy":
        low, high = wilson_interval(sum(values), len(values))
    else:
        low, high = bootstrap_interval(values, seed=seed)
    results = [dataclasses.replace(first, value=accuracy(values), low=low, high=high)]
    if task.kind == "perplexity":
        logprobs, n_words = [one.logprob for one in outcomes], [one.n_words for one in outcomes]
        value = perplexity(logprobs, n_words)
        low, high = (math.exp(-nats) for nats in reversed(bootstrap_interval(logprobs, n_words, seed=seed)))
        results.append(dataclasses.replace(first, metric="perplexity", value=value, low=low, high=high, samples=()))
    return results
