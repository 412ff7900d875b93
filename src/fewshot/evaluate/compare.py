"""How sure a difference is. In: two sets of answers, or two results. Out: the difference with its interval.

Two models, two protocols or two K on the same questions are compared question by question (`compare`); two results,
whose answers are not at hand, by their intervals (`gap`). Knows neither runs nor files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.base.errors import check
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.metrics.metric import Metric, resampled_sums
from fewshot.evaluate.protocol import EvalProtocol
from fewshot.evaluate.result import Result, TaskAnswers


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of two sets of answers to the same questions."""

    metric: str
    n: int  # questions that both answered, those of one group together
    n_unpaired: int  # answers that have no partner on the other side
    first: float
    second: float
    difference: float  # second - first
    low: float  # 95% interval of the difference, over resampled questions
    high: float
    only_first: int | None  # questions that only the first has right; None where a question is not right or wrong
    only_second: int | None
    p_value: float | None  # that so uneven a split of these questions, or a more uneven one, comes by chance


def compare(
    first: Sequence[Answer],
    second: Sequence[Answer],
    metric: Metric,
    *,
    seed: int,
    second_metric: Metric | None = None,
) -> Comparison:
    """Return the metric of two sets of answers, paired by their examples' ids, and how sure the difference is.

    Two protocols may have different metrics: `second_metric` is then the second's.

    The interval keeps the pairs: what makes a question hard for both does not widen it. Raises BadValue where no
    question has two answers, or an id comes twice.
    """
    ours, theirs = _by_id(first), _by_id(second)
    shared = [name for name in ours if name in theirs]
    check(
        bool(shared),
        "the two sets of answers have no question in common: evaluate both on the same task, data and --limit",
    )
    other = second_metric or metric
    left = metric.table([ours[name] for name in shared])
    right = other.table([theirs[name] for name in shared])
    width = left.shape[1]

    def values(sums: Sequence[float]) -> tuple[float, float]:
        return metric.value(sums[:width]), other.value(sums[width:])

    both = np.hstack([left, right])
    ours_value, theirs_value = values(both.sum(axis=0).tolist())
    low, high = np.percentile([b - a for a, b in map(values, resampled_sums(both, seed=seed))], [2.5, 97.5])
    split = _split(left, right) if metric.share and other.share and _is_binary(left) and _is_binary(right) else None
    return Comparison(
        metric=metric.name,
        n=len(both),
        n_unpaired=len(ours) + len(theirs) - 2 * len(shared),
        first=ours_value,
        second=theirs_value,
        difference=theirs_value - ours_value,
        low=float(low),
        high=float(high),
        only_first=None if split is None else split[0],
        only_second=None if split is None else split[1],
        p_value=None if split is None else mcnemar(*split),
    )


def compare_all(first: Sequence[TaskAnswers], second: Sequence[TaskAnswers]) -> list[tuple[TaskAnswers, Comparison]]:
    """Return every metric of two models on the same questions.

    A task and K that one of them could not answer at all is left out.
    """
    theirs_by_key = {_key(answers): answers for answers in second}
    pairs = [(ours, theirs_by_key.get(_key(ours))) for ours in first]
    return [
        (ours, compare(ours.answers, theirs.answers, metric, seed=ours.seed))
        for ours, theirs in pairs
        if theirs and ours.answers and theirs.answers
        for metric in ours.task.metrics
    ]


def compare_protocols(answered: Sequence[TaskAnswers]) -> list[tuple[TaskAnswers, Comparison]]:
    """Return the main metric of each task and K under the first protocol against that under every other one."""
    first = answered[0].task.protocol
    under_first = {(ours.task.name, ours.shots, ours.seed): ours for ours in answered if ours.task.protocol is first}
    rows = []
    for theirs in answered:
        ours = under_first.get((theirs.task.name, theirs.shots, theirs.seed))
        if theirs.task.protocol is not first and ours and ours.answers and theirs.answers:
            metric, other = ours.task.metrics[0], theirs.task.metrics[0]
            comparison = compare(ours.answers, theirs.answers, metric, seed=ours.seed, second_metric=other)
            rows.append((theirs, comparison))
    return rows


def _key(answers: TaskAnswers) -> tuple[str, EvalProtocol, int, int]:
    return answers.task.name, answers.task.protocol, answers.shots, answers.seed


def _by_id(answers: Sequence[Answer]) -> dict[str, Answer]:
    by_id = {answer.example.id: answer for answer in answers}
    check(len(by_id) == len(answers), "two answers have the same example id: they cannot be paired")
    return by_id


def _is_binary(table: np.ndarray) -> bool:
    """Return whether every row is one question that is right or wrong."""
    return table.shape[1] == 2 and bool(np.isin(table[:, 0], (0.0, 1.0)).all() and (table[:, 1] == 1).all())


def _split(left: np.ndarray, right: np.ndarray) -> tuple[int, int]:
    """Return how many questions only the left one, and only the right one, has right."""
    return int((left[:, 0] > right[:, 0]).sum()), int((left[:, 0] < right[:, 0]).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    It is the chance that a fair coin splits the questions that only one has right this unevenly, or more so.
    Source: McNemar 1947; the exact form is the binomial test.
    """
    check(min(only_first, only_second) >= 0, f"{only_first} and {only_second} must be counts from 0 up")
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A difference of two results with its 95% interval."""

    value: float
    low: float
    high: float


def gap(first: Result, second: Result) -> Gap | None:
    """Return how much higher the second result is, from their intervals alone; None where one has no value.

    It takes the questions for different ones, so the interval is wider than that of `compare`, which has the answers.
    Source: Newcombe 1998, method 10 for shares with Wilson's intervals.
    """
    if first.value is None or second.value is None:
        return None
    a, b = first.value, second.value
    a_low, a_high, b_low, b_high = (
        edge if edge is not None else value
        for edge, value in ((first.low, a), (first.high, a), (second.low, b), (second.high, b))
    )
    difference = b - a
    return Gap(
        value=difference,
        low=difference - math.hypot(b - b_low, a_high - a),
        high=difference + math.hypot(b_high - b, a - a_low),
    )
