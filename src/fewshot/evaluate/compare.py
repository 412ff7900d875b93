"""How sure a difference is, and what a score owes to chance. In: answers, measures. Out: numbers with their intervals.

Two models, two protocols or two K on the same questions (`compare`); several seeds or orders of the demonstrations
(`vary`, `over_seeds`, `in_order`); how far a model's confidence is from its accuracy (`calibration_error`).
Knows neither runs nor files.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewshot.base.errors import check
from fewshot.base.rng import python_rng
from fewshot.evaluate.answer import Answer, Normalisation
from fewshot.evaluate.example import DrawEpisodes, Episode
from fewshot.evaluate.metrics.metric import Z95, Metric, resampled_sums
from fewshot.evaluate.result import Answered, Result
from fewshot.evaluate.task import Task

N_BINS = 10  # of confidence

# Two-sided 95% quantiles of Student's t for 1 to 9 degrees of freedom; above, a series is exact to 0.001
STUDENT95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measure of two sets of answers to the same questions."""

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
    """Return what `measure` makes of two sets of answers, paired by their examples' ids.

    Two protocols may measure differently: `second_measure` is then the second's.

    The interval keeps the pairs: what makes a question hard for both does not widen it. Raises BadValue where no
    question has two answers, or an id comes twice.
    """
    ours, theirs = _by_id(first), _by_id(second)
    shared = [name for name in ours if name in theirs]
    check(bool(shared), "the two have no question in common: evaluate both on the same task, data and --limit")
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


def compare_all(first: Sequence[Answered], second: Sequence[Answered]) -> list[tuple[Answered, Comparison]]:
    """Return every measure of two models that were asked the same; what one of them could not answer at all is left
    out.
    """
    others = {(one.task.name, one.task.protocol, one.shots, one.seed): one for one in second}
    pairs = [(ours, others.get((ours.task.name, ours.task.protocol, ours.shots, ours.seed))) for ours in first]
    return [
        (ours, compare(ours.answers, theirs.answers, metric, seed=ours.seed))
        for ours, theirs in pairs
        if theirs and ours.answers and theirs.answers
        for metric in ours.task.metrics
    ]


def compare_protocols(answered: Sequence[Answered]) -> list[tuple[Answered, Comparison]]:
    """Return the main measure of each task and K under the first protocol against that under every other one."""
    first = answered[0].task.protocol
    ours = {(one.task.name, one.shots, one.seed): one for one in answered if one.task.protocol is first}
    rows = []
    for theirs in answered:
        one = ours.get((theirs.task.name, theirs.shots, theirs.seed))
        if theirs.task.protocol is not first and one and one.answers and theirs.answers:
            metric, other = one.task.metrics[0], theirs.task.metrics[0]
            found = compare(one.answers, theirs.answers, metric, seed=one.seed, second_metric=other)
            rows.append((theirs, found))
    return rows


def _by_id(answers: Sequence[Answer]) -> dict[str, Answer]:
    by_id = {answer.example.id: answer for answer in answers}
    check(len(by_id) == len(answers), "two answers are to examples of the same id: they cannot be paired")
    return by_id


def _is_binary(table: np.ndarray) -> bool:
    """Return whether every row is one question that is right or wrong."""
    return table.shape[1] == 2 and bool(np.isin(table[:, 0], (0.0, 1.0)).all() and (table[:, 1] == 1).all())


def _split(left: np.ndarray, right: np.ndarray) -> tuple[int, int]:
    """Return questions that only the left one, and only the right one, has right."""
    return int((left[:, 0] > right[:, 0]).sum()), int((left[:, 0] < right[:, 0]).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """Return two-sided p of McNemar's exact test: a fair coin falls this unevenly, or more, over the discordant
    questions.

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

    As if the questions were not the same, so wider than `compare`, which has the answers. Source: Newcombe 1998, method
    10 for shares with Wilson's intervals.
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


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A measure over several seeds or orders, the questions being the same."""

    n: int  # values
    mean: float
    deviation: float  # standard deviation of the values; 0 of a single one
    half_width: float | None  # of the mean's 95% interval by Student's t; None of a single value


def spread(values: Sequence[float]) -> Spread:
    """Return mean and spread of a measure taken several times. Source: Student 1908."""
    check(len(values) > 0, "a spread needs at least one value")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Spread(n=1, mean=mean, deviation=0.0, half_width=None)
    deviation = statistics.stdev(values)
    return Spread(n=n, mean=mean, deviation=deviation, half_width=student95(n - 1) * deviation / math.sqrt(n))


def student95(degrees: int) -> float:
    """Return two-sided 95% quantile of Student's t. Source: Abramowitz and Stegun 1964, 26.7.5."""
    check(degrees >= 1, f"{degrees} degrees of freedom, must be at least 1")
    if degrees <= len(STUDENT95):
        return STUDENT95[degrees - 1]
    z = Z95
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))


def over_seeds(results: Sequence[Result]) -> list[tuple[Result, Spread | None]]:
    """Return results that differ in their seed alone become one, with the spread of its value; None where there is no
    value.

    Value and interval of the joint result are the means over seeds: its interval is that of the questions.
    """
    groups: dict[tuple[str, str, str, int, str], list[Result]] = {}
    for one in results:
        key = (one.task, one.protocol, one.metric, one.shots, one.question_set)
        groups.setdefault(key, []).append(one)
    return [_over_seeds(group) for group in groups.values()]


def _over_seeds(group: Sequence[Result]) -> tuple[Result, Spread | None]:
    measured = [one for one in group if one.value is not None]
    if not measured:
        return group[0], None

    def mean(name: str) -> float | None:
        found = [value for one in measured if (value := getattr(one, name)) is not None]
        return statistics.fmean(found) if found else None

    joint = replace(
        measured[0],
        value=mean("value"),
        low=mean("low"),
        high=mean("high"),
        ideal=mean("ideal"),
        shots_used=mean("shots_used") or 0.0,
    )
    return joint, spread([one.value for one in measured if one.value is not None])


def in_order(task: Task, order: int) -> Task:
    """Return the task with the same demonstrations in another order, by question; 0 is the order in which they are
    drawn.

    What K + 1 shots show need not begin with what K show. Source: Lu et al. 2022, "Fantastically ordered prompts".
    """
    return task if order == 0 else replace(task, episodes=_shuffled(task.episodes, order))


def _shuffled(episodes: DrawEpisodes, order: int) -> DrawEpisodes:
    def in_another_order(n: int, max_shots: int, seed: int) -> Sequence[Episode]:
        return [shuffle(one, seed) for one in episodes(n, max_shots, seed)]

    def shuffle(episode: Episode, seed: int) -> Episode:
        shown = list(episode.demonstrations)
        python_rng("order of demonstrations", episode.example.id, seed, order).shuffle(shown)
        # the ideal learner's chances were for the first k of the former order
        return replace(episode, demonstrations=tuple(shown), ideal=None)

    return in_another_order


@dataclass(frozen=True, kw_only=True)
class Varied:
    """One measure of one task at one K over several seeds or orders."""

    task: str
    protocol: str
    metric: str
    shots: int
    spread: Spread
    turned: (
        float | None
    )  # share of questions that some have right and some wrong; None where questions are not the same


def vary(answered: Sequence[Answered]) -> list[Varied]:
    """Return a row for each measure and K over answers that differ in their seed, or in the order of demonstrations,
    alone.
    """
    groups: dict[tuple[str, str, int], list[Answered]] = {}
    for one in answered:
        if one.answers:
            groups.setdefault((one.task.name, one.task.protocol.name, one.shots), []).append(one)
    return [
        Varied(
            task=name,
            protocol=protocol,
            metric=metric.name,
            shots=shots,
            spread=spread([metric.of(one.answers) for one in group]),
            turned=turned(group, metric) if metric.share and _same_questions(group) else None,
        )
        for (name, protocol, shots), group in groups.items()
        for metric in group[0].task.metrics
    ]


def _same_questions(group: Sequence[Answered]) -> bool:
    """Return whether all were asked the same; a made task may ask another question under the same id for another
    seed.
    """
    asked = [{answer.example.id: answer.example for answer in one.answers} for one in group]
    return all(one == asked[0] for one in asked)


def turned(answered: Sequence[Answered], metric: Metric) -> float:
    """Return share of the questions that some of several answers have right and others wrong."""
    verdicts: dict[str, set[bool]] = {}
    for one in answered:
        for answer in one.answers:
            verdicts.setdefault(answer.example.id, set()).add(metric.of([answer]) > 0.5)
    return sum(len(found) > 1 for found in verdicts.values()) / max(1, len(verdicts))


def calibration_error(normalisation: Normalisation = "token", *, n_bins: int = N_BINS) -> Metric:
    """Return expected calibration error of choices: |confidence - accuracy| of each bin of confidence, weighted by its
    share.

    Confidence is the largest of the softmax over the completions' normalised scores. Source: Guo et al. 2017, section
    2; of language models' choices, Zhao et al. 2021.
    """
    check(n_bins >= 1, f"n_bins is {n_bins}, must be at least 1")

    def surplus(group: Sequence[Answer]) -> list[float]:
        """Return confidence less accuracy by bin, and the count: the error of any set of questions is a function of
        sums.
        """
        sums = [0.0] * n_bins
        for answer in group:
            confidence = _confidence(answer.normalised(normalisation))
            right = answer.example.is_right(answer.choice(normalisation))
            sums[min(int(confidence * n_bins), n_bins - 1)] += confidence - right
        return [*sums, float(len(group))]

    return Metric(
        "calibration_error",
        surplus,
        lambda sums: sum(map(abs, sums[:-1])) / sums[-1],
        normalisation=normalisation,
    )


def _confidence(scores: Sequence[float]) -> float:
    """Return the largest probability of the softmax over scores."""
    best = max(scores)
    return 1 / sum(math.exp(one - best) for one in scores)
