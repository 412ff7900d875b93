from __future__ import annotations

import math

import pytest

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.calibration import calibration_error
from fewshot.evaluate.metrics.metric import Metric


def confident(confidence: float, *, right: bool) -> Answer:
    logprobs = (math.log(confidence), math.log(1 - confidence))
    return Answer(
        example=Example("q", "?", (" a", " b")), logprobs=logprobs if right else logprobs[::-1], n_tokens=(1, 1)
    )


def test_calibration_error_is_worked_by_hand_and_nothing_for_a_model_that_knows_how_sure_to_be() -> None:
    metric: Metric = calibration_error("sum")
    some = [confident(0.75, right=right) for right in (True, True, True, False)]
    assert metric.of(some) == pytest.approx(0.0)
    sure = [confident(0.95, right=right) for right in (True, False)]
    assert metric.of(sure) == pytest.approx(0.45)
    assert metric.of([*some, *sure]) == pytest.approx(0.45 * 2 / 6)
    low, high = metric.interval([*some, *sure], seed=0)
    assert 0 <= low < metric.of([*some, *sure]) < high


def test_completions_of_many_tokens_are_compared_by_the_tasks_own_normalisation() -> None:
    answer = Answer(example=Example("q", "?", (" a", " b")), logprobs=(-4.0, -6.0), n_tokens=(1, 3))
    by_token = 1 / (1 + math.exp(-2.0))  # -4 against -2: wrong
    assert calibration_error("token").of([answer]) == pytest.approx(by_token)
    assert calibration_error("sum").of([answer]) == pytest.approx(1 - 1 / (1 + math.exp(-2.0)))  # right
