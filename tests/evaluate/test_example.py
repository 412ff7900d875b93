from __future__ import annotations

from dataclasses import replace

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.example import Example, first_questions, n_questions, with_equals


def test_partial_scoring_shows_the_right_context_in_a_demonstration():
    winograd = Example("w", "", (" was too big.",) * 2, 1, contexts=("because the suitcase", "because the trophy"))
    assert winograd.demonstration == "because the trophy was too big."


@pytest.mark.parametrize(
    "wrong", [{"completions": ()}, {"completions": (" a", "")}, {"gold": 2}, {"contexts": ("only one",)}]
)
def test_an_example_that_cannot_be_asked_is_refused(wrong):
    with pytest.raises(BadValue, match="example x"):
        Example(**{"id": "x", "context": "c", "completions": (" a", " b"), **wrong})


def test_of_choices_that_read_alike_all_are_right():
    alike = Example("x", "c", (" a", " b", " a"), 2)
    assert with_equals(alike).also_right == (0,)
    assert with_equals(replace(alike, completions=(" a", " b", " c"))).also_right == ()
    apart = replace(alike, completions=(" a", " a", " b"), gold=0, contexts=("one", "two", "one"))
    assert with_equals(apart).also_right == ()  # the contexts differ


def test_examples_of_one_group_are_one_question():
    examples = [Example(str(i), "c", (" a",), group=group) for i, group in enumerate(("", "g", "g", "", "h", "h"))]
    assert n_questions(examples) == 4
    assert [example.id for example in first_questions(examples, 2)] == ["0", "1", "2"]
    assert [example.id for example in first_questions(examples, 3)] == ["0", "1", "2", "3"]
    assert first_questions(examples, 99) == examples
