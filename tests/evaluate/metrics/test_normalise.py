"""Normalised answers, worked by hand after the official SQuAD evaluation."""

from __future__ import annotations

import pytest

from fewshot.evaluate.metrics.normalise import matches_any, normalise_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Beatles", "beatles"),
        ("  an  apple,\ta day!", "apple day"),
        ("U.S.A.", "usa"),  # punctuation vanishes, it does not part words
        ("well-known", "wellknown"),
        ("Theatre of another age", "theatre of another age"),  # articles are whole words
        ("a.", ""),
        ("«Élan» – 3", "«élan» – 3"),  # only ASCII punctuation goes
    ],
)
def test_answers_lose_case_punctuation_articles_and_needless_spaces(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("said", "accepted", "value"),
    [
        ("", ["The"], 0.0),
        (" the", ["A"], 0.0),
        ("...", [")"], 0.0),
        (" )", [")"], 1.0),
        (" The \nQ: next", ["The"], 1.0),
        ("", ["", "x"], 0.0),
        ("\n", ["-", "*"], 0.0),
        (" *", ["a saltire", "*"], 1.0),
    ],
)
def test_an_answer_of_articles_and_marks_alone_is_compared_as_it_stands(said, accepted, value) -> None:
    assert matches_any(said, accepted) == value


def test_any_accepted_answer_will_do_and_only_the_first_line_counts() -> None:
    assert matches_any(" the David Seville.\nQ: next", ["Alvin", "David Seville"]) == 1.0
    assert matches_any(" Seville\nDavid Seville", ["David Seville"]) == 0.0
