from __future__ import annotations

import random

import pytest

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.translation import chrf, chrf_of, chrf_statistics, ter

sacrebleu = pytest.importorskip("sacrebleu")

WORDS = ["the", "a", "dog", "cat", "naïve", "ran", ".", "“so”", "well-known", "x"]


def answers(pairs: list[tuple[str, str]]) -> list[Answer]:
    return [Answer(example=Example(str(i), "q", (f"  {right}",)), text=said) for i, (said, right) in enumerate(pairs)]


def test_chrf_is_worked_by_hand_for_one_word():
    # "abc" against "abd": 1-grams 2 of 3, 2-grams 1 of 2, 3-grams 0 of 1; longer ones occur on neither side.
    assert chrf_statistics("a bc", "abd")[:9] == [3, 3, 2, 2, 2, 1, 1, 1, 0]
    share = (2 / 3 + 1 / 2 + 0) / 3
    assert chrf_of(chrf_statistics("abc", "abd")) == pytest.approx(100 * share)


def test_ter_counts_edits_and_shifts_for_a_hundred_words():
    assert ter().of(answers([("b a c d", "a b c d")])) == 25.0  # one shift
    assert ter().of(answers([("a b", "a b c d"), ("", "e f")])) == pytest.approx(100 * 4 / 6)


def test_both_are_sacrebleus_over_a_corpus():
    rng = random.Random(0)

    def text(least: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, 9)))

    for n in (1, 2, 20):
        pairs = [(text(0), text(1)) for _ in range(n)]
        said, right = ([pair[side] for pair in pairs] for side in (0, 1))
        assert chrf().of(answers(pairs)) == pytest.approx(sacrebleu.corpus_chrf(said, [right]).score)
        assert ter().of(answers(pairs)) == pytest.approx(sacrebleu.corpus_ter(said, [right]).score)


def test_nothing_written_scores_nothing():
    assert chrf().of(answers([("", "a dog")])) == 0.0
    assert ter().of(answers([("", "a dog")])) == 100.0
