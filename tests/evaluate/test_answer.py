from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example


def chosen(*logprobs: float, gold: int = 0, completions=(" ab", " c"), **fields) -> Answer:
    example = Example("e", "q", completions, gold=gold)
    return Answer(example=example, logprobs=logprobs, n_tokens=(3, 1), greedy=(False, True), **fields)


def test_a_choice_is_the_likeliest_after_normalisation_by_hand():
    answer = chosen(-6.0, -2.5, completions=(" abcd", " é"), unconditional=(-9.0, -3.0))
    assert answer.choice("sum") == 1  # -6 against -2.5
    assert answer.choice("token") == 0  # -2 against -2.5
    assert answer.choice("character") == 0  # -1.5 against -2.5
    assert answer.choice("byte") == 1  # -1.5 against -1.25: é has two bytes
    assert answer.choice("unconditional") == 0  # 3 against 0.5
    assert chosen(-1.0, -1.0).choice("sum") == 0  # the first of equals


@pytest.mark.parametrize("normalisation", ["character", "byte"])
@pytest.mark.parametrize("empty", [" ", ""])
def test_a_choice_without_letters_is_never_the_likeliest_by_letter(normalisation, empty):
    example = SimpleNamespace(completions=(empty, " b"))
    answer = Answer(example=example, logprobs=(-0.1, -9.0), n_tokens=(1, 1))
    assert answer.normalised(normalisation) == [-math.inf, -9.0]  # as the harness's division gives it
    assert answer.choice(normalisation) == 1
