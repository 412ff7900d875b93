"""How much a score owes to the demonstrations that were drawn, and to their order. In: answers, results. Out: spreads.

The same task over several seeds or orders (`repeats`, `in_order`), and what became of its metrics (`vary`,
`over_seeds`). Knows neither runs nor files.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fewshot.base.errors import check
from fewshot.base.quantiles import student95
from fewshot.base.rng import python_rng
from fewshot.evaluate.example import DrawEpisodes, Episode
from fewshot.evaluate.metrics.metric import Metric
from fewshot.evaluate.result import Result, TaskAnswers
from fewshot.evaluate.task import Task


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A metric over several seeds or orders, the questions being the same."""

    n: int  # values
    mean: float
    deviation: float  # standard deviation of the values; 0 of a single one
    half_width: float | None  # of the mean's 95% interval by Student's t; None of a single value


def spread(values: Sequence[float]) -> Spread:
    """Return mean and spread of a metric that was taken several times. Source: Student 1908."""
    check(len(values) > 0, "a spread needs at least one value")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Spread(n=1, mean=mean, deviation=0.0, half_width=None)
    deviation = statistics.stdev(values)
    return Spread(n=n, mean=mean, deviation=deviation, half_width=student95(n - 1) * deviation / math.sqrt(n))


def over_seeds(results: Sequence[Result]) -> list[tuple[Result, Spread | None]]:
    """Join results that differ in their seed alone, each with the spread of its value (None where there is no value).

    Value and interval of the joint result are the means over seeds: its interval is that of the questions.
    """
    groups: dict[tuple[str, str, str, int, str], list[Result]] = {}
    for result in results:
        key = (result.task, result.protocol, result.metric, result.shots, result.question_set)
        groups.setdefault(key, []).append(result)
    return [_over_seeds(group) for group in groups.values()]


def _over_seeds(group: Sequence[Result]) -> tuple[Result, Spread | None]:
    measured = [result for result in group if result.value is not None]
    if not measured:
        return group[0], None

    def mean(name: str) -> float | None:
        values = [value for result in measured if (value := getattr(result, name)) is not None]
        return statistics.fmean(values) if values else None

    joint = replace(
        measured[0],
        value=mean("value"),
        low=mean("low"),
        high=mean("high"),
        ideal=mean("ideal"),
        shots_used=mean("shots_used") or 0.0,
    )
    return joint, spread([result.value for result in measured if result.value is not None])


def in_order(task: Task, order: int) -> Task:
    """Return the task with each question's demonstrations in another order; 0 is the order in which they are drawn.

    What K + 1 shots show need not begin with what K show. Source: Lu et al. 2022, "Fantastically ordered prompts".
    """
    return task if order == 0 else replace(task, episodes=_shuffled(task.episodes, order))


def _shuffled(episodes: DrawEpisodes, order: int) -> DrawEpisodes:
    def in_another_order(n: int, max_shots: int, seed: int) -> Sequence[Episode]:
        return [shuffle(episode, seed) for episode in episodes(n, max_shots, seed)]

    def shuffle(episode: Episode, seed: int) -> Episode:
        demonstrations = list(episode.demonstrations)
        python_rng("order of demonstrations", episode.example.id, seed, order).shuffle(demonstrations)
        # the ideal learner's chances were for the first k of the former order
        return replace(episode, demonstrations=tuple(demonstrations), ideal=None)

    return in_another_order


def repeats(shots: Sequence[int], seeds: Sequence[int], n_orders: int) -> list[tuple[int, int, list[int]]]:
    """Return (seed, order, shots) of each evaluation that several seeds and orders of the demonstrations need.

    Every seed has the order in which demonstrations are drawn; the other orders are taken with the first seed, and
    only where there is more than one demonstration.
    """
    reordered = [k for k in shots if k > 1]
    drawn = [(seed, 0, list(shots)) for seed in seeds]
    return drawn + [(seeds[0], order, reordered) for order in range(1, n_orders) if reordered]


@dataclass(frozen=True, kw_only=True)
class Varied:
    """One metric of one task at one K over several seeds or orders."""

    task: str
    protocol: str
    metric: str
    shots: int
    spread: Spread
    turned: float | None  # share of questions right in some and wrong in others; None where the questions differ


def vary(answered: Sequence[TaskAnswers]) -> list[Varied]:
    """Return a row for each metric and K over answers that differ only in their seed, or only in their order."""
    groups: dict[tuple[str, str, int], list[TaskAnswers]] = {}
    for answers in answered:
        if answers.answers:
            groups.setdefault((answers.task.name, answers.task.protocol.name, answers.shots), []).append(answers)
    return [
        Varied(
            task=name,
            protocol=protocol,
            metric=metric.name,
            shots=shots,
            spread=spread([metric.of(member.answers) for member in group]),
            turned=turned(group, metric) if metric.share and _same_questions(group) else None,
        )
        for (name, protocol, shots), group in groups.items()
        for metric in group[0].task.metrics
    ]


def _same_questions(group: Sequence[TaskAnswers]) -> bool:
    """Return whether all have the same questions; a made task may have another one of the same id for another seed."""
    questions = [{answer.example.id: answer.example for answer in member.answers} for member in group]
    return all(others == questions[0] for others in questions)


def turned(answered: Sequence[TaskAnswers], metric: Metric) -> float:
    """Return the share of questions that some of several sets of answers have right and others wrong."""
    verdicts: dict[str, set[bool]] = {}
    for answers in answered:
        for answer in answers.answers:
            verdicts.setdefault(answer.example.id, set()).add(metric.of([answer]) > 0.5)
    return sum(len(several) > 1 for several in verdicts.values()) / max(1, len(verdicts))
