from __future__ import annotations

import pytest

from fewshot.base.text import in_words, without_surrogates


def test_lone_surrogates_become_the_replacement_character() -> None:
    assert without_surrogates("a\ud800b") == "a\ufffdb"
    assert without_surrogates("\U0001f600") == "\U0001f600"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "a few seconds"),
        (61, "about 61 seconds"),
        (400, "about 7 minutes"),
        (8000, "about 2 hours"),
        (3e6, "about 35 days"),
        (4e10, "about 1,268 years"),
        (1e20, "about 3.2e+12 years"),
    ],
)
def test_times_are_said_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
