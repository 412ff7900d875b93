from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from small_evaluations import answers

from fewshot.base.errors import BadValue
from fewshot.evaluate import run
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.compare import compare, gap, mcnemar
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy, perplexity, wilson_interval, written_exactly
from fewshot.evaluate.tasks.table import make_task


def test_a_paired_comparison_counts_the_questions_that_only_one_has_right() -> None:
    first, second = answers("1100011111"), answers("1011111111")
    found = compare(first, second, accuracy(), seed=0)
    assert (found.n, found.n_unpaired, found.only_first, found.only_second) == (10, 0, 1, 3)
    assert (found.first, found.second) == (0.7, 0.9)
    assert found.difference == pytest.approx(0.2)
    assert found.p_value == pytest.approx(2 * (1 + 4) / 16)  # of four, at most one: (1 + 4) of 16 falls of a coin
    assert found.low < 0 < found.difference < found.high


def test_two_protocols_are_compared_by_a_metric_of_their_own() -> None:
    long = Example("q", "?", (" a", " b c d"))
    asked = [Answer(example=long, logprobs=(-2.0, -3.0), n_tokens=(1, 3))]  # right by sum, wrong by token
    found = compare(asked, asked, accuracy("sum", name="acc"), second_metric=accuracy("token"), seed=0)
    assert (found.metric, found.first, found.second, found.only_first) == ("acc", 1.0, 0.0, 1)


def test_two_k_are_compared_on_the_same_questions(small_tokenizer, copier) -> None:
    tokenizer = small_tokenizer()
    task = make_task("novel_symbols")
    zero, all_shown = run.evaluate(
        copier(tokenizer.n_vocab, 200, order=2), tokenizer, task, shots=(0, 16), limit=30, seed=0
    )
    found = compare(zero.answers, all_shown.answers, task.metrics[0], seed=0)
    assert (found.n, found.second, found.only_first) == (30, 1.0, 0)
    assert found.low > 0.5
    assert found.p_value < 1e-6


def test_pairing_is_by_id_and_what_has_no_partner_is_counted() -> None:
    first, second = answers("1110", first=0), answers("0011", first=2)[::-1]
    found = compare(first, second, accuracy(), seed=0)
    assert (found.n, found.n_unpaired) == (2, 4)
    assert (found.first, found.second) == (0.5, 0.0)  # q2 and q3 of each
    with pytest.raises(BadValue, match="no question in common"):
        compare(first, answers("1", first=9), accuracy(), seed=0)
    with pytest.raises(BadValue, match="same example id"):
        compare([*first, *first], second, accuracy(), seed=0)


def test_equal_answers_differ_by_nothing_for_sure_although_each_score_is_unsure() -> None:
    same = answers("1010101011")
    found = compare(same, same, accuracy(), seed=0)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    low, high = accuracy().interval(same, seed=0)
    assert high - low > 0.4


def test_a_metric_that_is_no_share_has_an_interval_and_no_p_value() -> None:
    def scored(*nats: float) -> list[Answer]:
        return [Answer(example=Example(f"t{i}", "", ("one two",)), logprobs=(-n,)) for i, n in enumerate(nats)]

    found = compare(scored(2, 4, 6), scored(1, 3, 5), perplexity("word"), seed=0)
    assert found.first == pytest.approx(math.exp(2))
    assert found.second == pytest.approx(math.exp(1.5))
    assert found.low <= found.difference <= found.high < 0
    assert (found.p_value, found.only_first) == (None, None)


def test_a_gap_from_two_results_has_newcombes_published_interval() -> None:
    """Newcombe 1998, table II, 56/70 and 48/80: difference 0.2000, method 10 gives 0.0524 to 0.3339."""
    first, second = (
        SimpleNamespace(value=right / n, **dict(zip(("low", "high"), wilson_interval(right, n), strict=True)))
        for right, n in ((48, 80), (56, 70))
    )
    found = gap(first, second)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert gap(SimpleNamespace(value=None, low=None, high=None), second) is None


@pytest.mark.parametrize(("split", "p"), [((0, 0), 1.0), ((5, 5), 1.0), ((0, 6), 2 / 64), ((10, 1), 2 * 12 / 2048)])
def test_mcnemars_exact_test_is_that_of_a_fair_coin(split: tuple[int, int], p: float) -> None:
    assert mcnemar(*split) == pytest.approx(p)
    assert mcnemar(*split[::-1]) == mcnemar(*split)


def test_mcnemar_of_thousands_of_questions_does_not_overflow() -> None:
    assert 0 < mcnemar(4700, 5000) < 0.01


def test_a_written_answer_is_paired_too() -> None:
    def wrote(*texts: str) -> list[Answer]:
        return [Answer(example=Example(f"q{i}", "?", (" 4",)), text=text) for i, text in enumerate(texts)]

    found = compare(wrote(" 4", " 5"), wrote(" 4", " 4"), written_exactly(), seed=0)
    assert (found.only_first, found.only_second, found.p_value) == (0, 1, 1.0)
