"""BLEU against sacreBLEU, a golden value of multi-bleu's, and numbers worked by hand."""

from __future__ import annotations

import importlib.util
import math
import random
from pathlib import Path

import pytest
import sacrebleu

from fewshot.base.errors import BadValue
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.bleu import bleu_multi, bleu_of, bleu_sacre, ngram_statistics
from fewshot.evaluate.metrics.metric import Metric

REFERENCES = (
    'The mayor said: "No, we can\'t pay 1,500.50 euros!"',
    "It rained in São Paulo; 3.5 million people stayed at home.",
    "The house is small &amp; old.",
    "Yes.",
)


def answers(hypotheses, references) -> list[Answer]:
    return [
        Answer(example=Example(str(number), "", (f" {reference}",)), text=f" {hypothesis}")
        for number, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True))
    ]


@pytest.fixture(scope="module")
def translations(shared_data: Path) -> list[Answer]:
    texts = [
        (shared_data / "golden/bleu" / name).read_text(encoding="utf-8") for name in ("deen_output", "deen_ref_bpe")
    ]
    hypotheses, references = (text.replace("@@ ", "").split("\n")[:3000] for text in texts)
    return answers(hypotheses, references)


def test_plain_splitting_gives_the_golden_corpus_bleu(translations: list[Answer]) -> None:
    # Three hypotheses are empty, and count as one empty word here.
    metric = bleu_multi(tokenise=lambda text: text.split(" "))
    assert metric.of(translations) == pytest.approx(22.5855084573, abs=1e-9)


def test_multi_style_is_sacrebleus_without_tokeniser_and_smoothing(translations: list[Answer]) -> None:
    texts = [answer.text for answer in translations]
    references = [answer.example.completions[0] for answer in translations]
    expected = sacrebleu.corpus_bleu(texts, [references], tokenize="none", smooth_method="none", force=True).score
    assert bleu_multi().of(translations) == expected


@pytest.mark.parametrize("damage", [0.0, 0.1, 0.5, 0.9])
def test_sacre_style_is_exactly_sacrebleus(damage: float) -> None:
    rng = random.Random(7)
    hypotheses = [" ".join(word for word in line.split() if rng.random() >= damage) for line in REFERENCES]
    expected = sacrebleu.corpus_bleu(hypotheses, [list(REFERENCES)]).score
    assert bleu_sacre().of(answers(hypotheses, REFERENCES)) == expected


@pytest.mark.parametrize(
    ("hypothesis", "reference"),
    [
        ("the small cat sat", "a small dog sat there"),  # no 2-, 3- or 4-gram matches: smoothed
        ("entirely other words here", "nothing in common with this"),
        ("Yes.", "Yes, of course I will come."),  # no 4-gram at all
        ("", "nothing was written"),
        ("a much longer line than the reference has", "a much longer line"),
    ],
)
def test_sacre_style_is_exactly_sacrebleus_where_orders_have_no_match(hypothesis: str, reference: str) -> None:
    expected = sacrebleu.corpus_bleu([hypothesis], [[reference]]).score
    assert bleu_sacre().of(answers([hypothesis], [reference])) == expected


def test_sacre_style_is_exactly_sacrebleus_on_real_sentences(shared_data: Path) -> None:
    text = (shared_data / "eval/wmt16_roen_dev/newsdev2016.en").read_text(encoding="utf-8")
    references = text.rstrip("\n").split("\n")[:300]
    hypotheses = [" ".join(line.split()[1:] + line.split()[:1]) for line in references]
    expected = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert bleu_sacre().of(answers(hypotheses, references)) == expected
    assert 50 < expected < 99


def test_statistics_are_clipped_matches_totals_and_lengths() -> None:
    # "the the cat" against "the cat sat": the (once), cat; "the cat"; no more.
    assert ngram_statistics(["the", "the", "cat"], ["the", "cat", "sat"]) == (2, 1, 0, 0, 3, 2, 1, 0, 3, 3)


def test_multi_style_by_hand() -> None:
    # 5-word hypothesis, 6-word reference: precisions 5/5, 4/4, 3/3, 2/2 and a brevity penalty of exp(1 - 6/5).
    metric = bleu_multi()
    assert metric.of(answers(["a b c d e"], ["a b c d e f"])) == pytest.approx(100 * math.exp(-0.2))
    assert metric.of(answers(["a b c d x"], ["a b c y z"])) == 0.0  # no 4-gram matches, and nothing is smoothed


def test_it_is_the_corpus_that_is_measured_not_the_mean_of_sentences() -> None:
    pair = answers(["a b c d", "x y z w v"], ["a b c d", "x y z q r"])
    matches, totals = (4 + 3, 3 + 2, 2 + 1, 1 + 0), (4 + 5, 3 + 4, 2 + 3, 1 + 2)
    expected = 100 * math.exp(sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / 4)
    assert bleu_multi().of(pair) == pytest.approx(expected)
    assert bleu_of((*matches, *totals, 9, 9), smooth=False) == pytest.approx(expected)


def test_the_first_line_alone_is_compared() -> None:
    answer = Answer(example=Example("1", "", (" a b c d",)), text=" a b c d\nmore = plus")
    assert bleu_multi().of([answer]) == pytest.approx(100)


def test_an_interval_comes_from_resampled_sentences() -> None:
    metric: Metric = bleu_multi()
    low, high = metric.interval(answers(["a b c d e", "a b c d x"] * 20, ["a b c d e"] * 40), seed=0)
    assert low < metric.of(answers(["a b c d e", "a b c d x"] * 20, ["a b c d e"] * 40)) < high < 100


def test_without_sacrebleu_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadValue, match=r"fewshot\[evaluate\]"):
        bleu_sacre()
