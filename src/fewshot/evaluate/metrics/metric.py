"""Metrics of answers and how sure they are. In: answers. Out: a value with its 95% interval. Knows no model.

Every metric is a function of sums over questions: accuracy, perplexity, macro F1 and BLEU alike. So one bootstrap,
over questions, serves them all. Source: Efron 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fewshot.base.errors import check
from fewshot.base.quantiles import Z95
from fewshot.base.rng import numpy_rng
from fewshot.evaluate.answer import Answer, Normalisation
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.normalise import first_line

N_RESAMPLES = 1000  # of the bootstrap

Statistics = Callable[[Sequence[Answer]], Sequence[float]]


@dataclass(frozen=True)
class Metric:
    """`value` of the sums of `statistics` over questions; those of one group (see `Example`) come together."""

    name: str
    statistics: Statistics
    value: Callable[[Sequence[float]], float]
    share: bool = False  # a share of right answers: shown in per cent, with Wilson's interval
    normalisation: Normalisation = "token"  # by which a choice is taken, where it judges choices

    def of(self, answers: Sequence[Answer]) -> float:
        """Return the value over these answers."""
        return self.value(self.table(answers).sum(axis=0).tolist())

    def interval(self, answers: Sequence[Answer], *, seed: int) -> tuple[float, float]:
        """Return the 95% interval (low, high): Wilson's for a share, else over resampled questions."""
        table = self.table(answers)
        if self.share and set(np.unique(table)) <= {0.0, 1.0}:
            return wilson_interval(float(table[:, 0].sum()), len(table))
        values = [self.value(sums) for sums in resampled_sums(table, seed=seed)]
        with np.errstate(invalid="ignore"):  # between two infinities there is nothing
            low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)

    def table(self, answers: Sequence[Answer]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a row of statistics for each question or group, in their order."""
        check(len(answers) > 0, f"{self.name} needs at least one answer")
        return np.array([self.statistics(group) for group in grouped(answers)], dtype=np.float64)


def grouped(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Return the answers by question: those of one group together, others alone."""
    groups: dict[str | int, list[Answer]] = {}
    for number, answer in enumerate(answers):
        groups.setdefault(answer.example.group or number, []).append(answer)
    return list(groups.values())


def summed(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the sum of each column."""
    return [float(sum(column)) for column in zip(*rows, strict=True)]


def resampled_sums(table: np.ndarray[Any, Any], *, seed: int) -> list[list[float]]:
    """Return the column sums of `N_RESAMPLES` tables whose rows are drawn from `table` with replacement."""
    rng, n = numpy_rng("bootstrap", seed), len(table)
    counts = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(N_RESAMPLES)])
    return (counts @ table).tolist()


def ratio(sums: Sequence[float]) -> float:
    """Return the first sum over the second, which is a count; NaN where it is 0."""
    return sums[0] / sums[1] if sums[1] else math.nan


def exp_of(nats: float) -> float:
    """Return exp, or infinity beyond the largest float: a paragraph without spaces may count as one word."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def mean_of(
    name: str, value: Callable[[Answer], float], *, share: bool = False, normalisation: Normalisation = "token"
) -> Metric:
    """Return the metric that is the mean of `value` over answers."""
    return Metric(name, lambda group: (sum(map(value, group)), len(group)), ratio, share, normalisation)


def accuracy(normalisation: Normalisation = "token", *, name: str = "accuracy") -> Metric:
    """Return the metric: the share of questions whose likeliest completion is a right one."""

    def right(answer: Answer) -> float:
        return float(answer.example.is_right(answer.choice(normalisation)))

    return mean_of(name, right, share=True, normalisation=normalisation)


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """Return 1.0 if the answer's first line is one of the accepted answers, spaces at both ends aside; else 0.0."""
    prediction = first_line(answer)
    return float(any(prediction == right.strip() for right in accepted))


def written_exactly(name: str = "accuracy") -> Metric:
    """Return the metric: the share of questions whose written answer is one of the accepted ones."""
    return mean_of(name, lambda answer: exact_match(answer.text, answer.example.completions), share=True)


def same_text(name: str = "exact_match") -> Metric:
    """Return the metric: the share of questions whose written answer is the gold one, spaces included."""
    return judged(name, lambda text, example: float(text == example.completions[example.gold]), share=True)


def judged(name: str, judge: Callable[[str, Example], float], *, share: bool = False) -> Metric:
    """Return the metric that is the mean of what `judge` gives each written answer."""
    return mean_of(name, lambda answer: judge(answer.text, answer.example), share=share)


def greedy_accuracy(name: str = "accuracy") -> Metric:
    """Return the metric: the share of questions whose gold completion is, token by token, the model's first choice."""
    return mean_of(name, lambda answer: float(answer.greedy[0]), share=True)


def perplexity(unit: Literal["completion", "word", "byte"] = "word", *, name: str = "perplexity") -> Metric:
    """Return the metric: exp of the mean nats per unit of the scored text; words are what stands between spaces."""

    def count(answer: Answer) -> float:
        text = answer.example.completions[answer.example.gold]
        return {"completion": 1, "word": len(text.split()), "byte": len(text.encode())}[unit]

    return Metric(
        name,
        lambda group: (sum(answer.logprobs[0] for answer in group), sum(map(count, group))),
        lambda sums: exp_of(-ratio(sums)),
    )


def wilson_interval(n_right: float, n: int) -> tuple[float, float]:
    """Return the 95% interval (low, high) of a proportion, sound near 0 and 1. Source: Wilson 1927."""
    check(0 <= n_right <= n and n > 0, f"{n_right} right of {n} is no proportion")
    share, z2 = n_right / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
