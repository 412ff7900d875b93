from __future__ import annotations

import math

import numpy as np
import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import (
    Metric,
    accuracy,
    exact_match,
    greedy_accuracy,
    mean_of,
    perplexity,
    ratio,
    wilson_interval,
    written_exactly,
)


def chosen(*logprobs: float, gold: int = 0, completions=(" ab", " c"), **fields) -> Answer:
    example = Example("e", "q", completions, gold=gold)
    return Answer(example=example, logprobs=logprobs, n_tokens=(3, 1), greedy=(False, True), **fields)


def test_exact_match_reads_the_first_line_without_its_spaces():
    assert exact_match(" 143\nQ: What", (" 143",)) == 1.0
    assert exact_match("\n 143 ", ("x", " 143")) == 1.0
    assert exact_match(" 1433", (" 143",)) == 0.0
    assert exact_match("", (" 143",)) == 0.0


# Reference values: statsmodels.stats.proportion.proportion_confint(method="wilson"), known from its documentation
# of the formula and worked by hand here for 0 of n, where low = 0 and high = z^2 / (n + z^2).
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775328), (5, 10, 0.2365931, 0.7634069), (10, 10, 0.7224672, 1.0), (81, 263, 0.2552689, 0.3662246)],
)
def test_wilson_interval_agrees_with_published_numbers(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_nothing_is_refused():
    with pytest.raises(BadValue, match="no proportion"):
        wilson_interval(0, 0)


def test_accuracy_counts_every_right_completion():
    answers = [chosen(-1.0, -9.0), chosen(-9.0, -1.0), chosen(-9.0, -1.0, gold=1)]
    assert accuracy("sum").of(answers) == pytest.approx(2 / 3)
    both = Answer(example=Example("e", "q", (" a", " b"), also_right=(1,)), logprobs=(-9.0, -1.0))
    assert accuracy("sum").of([both]) == 1.0


def test_perplexity_is_per_unit_over_all_units_not_per_item():
    def said(text: str, logprob: float) -> Answer:
        return Answer(example=Example("e", "q", (text,)), logprobs=(logprob,), greedy=(True,))

    answers = [said(" three words here", -math.log(8)), said(" é", -math.log(2))]
    assert perplexity().of(answers) == pytest.approx(2.0)
    assert perplexity("completion").of(answers) == pytest.approx(4.0)
    assert perplexity("byte").of(answers) == pytest.approx(16 ** (1 / 20))
    low, high = perplexity().interval(answers, seed=0)
    assert low <= 2.0 <= high
    assert greedy_accuracy().of(answers) == 1.0


def test_a_written_answer_is_right_if_one_of_the_accepted_is():
    example = Example("e", "2 plus 2 is", (" 4", " four"))
    answers = [Answer(example=example, text=text) for text in (" four", " 5")]
    assert written_exactly().of(answers) == 0.5


def test_the_bootstrap_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    answers = [Answer(example=Example(str(i), "q", (" a",)), logprobs=(float(v),)) for i, v in enumerate(values)]
    metric = mean_of("mean", lambda answer: answer.logprobs[0])
    half = 1.96 * values.std() / 20
    assert metric.interval(answers, seed=1) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert metric.interval(answers, seed=1) == metric.interval(answers, seed=1)


def test_questions_of_one_group_are_judged_and_drawn_together():
    answers = [
        Answer(example=Example(str(i), "q", (" a", " b"), group=f"g{i // 4}"), logprobs=(-1.0, -2.0 + 2 * (i == 5)))
        for i in range(12)
    ]  # three groups of four; in the second one answer is wrong
    sizes = []

    def all_right(group):
        sizes.append(len(group))
        return min(one.example.is_right(one.choice("sum")) for one in group), 1

    metric = Metric("all right", all_right, ratio, share=True)
    assert metric.of(answers) == pytest.approx(2 / 3)
    assert set(sizes) == {4}
    assert metric.interval(answers, seed=0) == pytest.approx(wilson_interval(2, 3))


def test_a_metric_of_nothing_is_refused():
    with pytest.raises(BadValue, match="accuracy needs at least one answer"):
        accuracy().of([])
