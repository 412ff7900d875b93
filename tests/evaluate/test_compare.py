from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate import run
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.compare import (
    calibration_error,
    compare,
    gap,
    in_order,
    mcnemar,
    over_seeds,
    spread,
    student95,
    turned,
    vary,
)
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, accuracy, perplexity, wilson_interval, written_exactly
from fewshot.evaluate.result import Answered
from fewshot.evaluate.tasks.table import make_task


def answers(right: str, *, first: int = 0) -> list[Answer]:
    """Choices between two: "1" is a right one, "0" a wrong one."""
    return [
        Answer(
            example=Example(f"q{first + i}", "?", (" a", " b")),
            logprobs=(-1.0, -2.0) if mark == "1" else (-2.0, -1.0),
            n_tokens=(1, 1),
        )
        for i, mark in enumerate(right)
    ]


def test_a_paired_comparison_counts_the_questions_that_only_one_has_right() -> None:
    first, second = answers("1100011111"), answers("1011111111")
    found = compare(first, second, accuracy(), seed=0)
    assert (found.n, found.n_unpaired, found.only_first, found.only_second) == (10, 0, 1, 3)
    assert (found.first, found.second) == (0.7, 0.9)
    assert found.difference == pytest.approx(0.2)
    assert found.p_value == pytest.approx(2 * (1 + 4) / 16)  # of four, at most one: (1 + 4) of 16 falls of a coin
    assert found.low < 0 < found.difference < found.high


def test_two_protocols_are_compared_by_a_measure_of_their_own() -> None:
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
    with pytest.raises(BadValue, match="same id"):
        compare([*first, *first], second, accuracy(), seed=0)


def test_equal_answers_differ_by_nothing_for_sure_although_each_score_is_unsure() -> None:
    same = answers("1010101011")
    found = compare(same, same, accuracy(), seed=0)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    low, high = accuracy().interval(same, seed=0)
    assert high - low > 0.4


def test_a_measure_that_is_no_share_has_an_interval_and_no_p_value() -> None:
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


def test_spread_is_students_interval_worked_by_hand() -> None:
    found = spread([0.4, 0.5, 0.6])
    assert (found.n, found.mean) == (3, pytest.approx(0.5))
    assert found.deviation == pytest.approx(0.1)
    assert found.half_width == pytest.approx(4.3027 * 0.1 / math.sqrt(3))
    assert spread([0.4]).half_width is None


def test_students_quantiles_are_those_of_the_tables_and_fall_to_the_normal_one() -> None:
    for degrees, published in ((10, 2.2281), (15, 2.1314), (30, 2.0423), (120, 1.9799)):
        assert student95(degrees) == pytest.approx(published, abs=1e-3)
    quantiles = [student95(degrees) for degrees in range(1, 200)]
    assert all(a > b > 1.96 - 1e-4 for a, b in pairwise(quantiles))


def test_results_of_several_seeds_become_one_with_its_spread(small_tokenizer, copier) -> None:
    tokenizer = small_tokenizer()
    model, task = copier(tokenizer.n_vocab, 200, order=2), make_task("novel_symbols")
    results = [
        result
        for seed in (0, 1, 2)
        for answered in run.evaluate(model, tokenizer, task, shots=(0, 4), limit=20, seed=seed)
        for result in answered.results()
    ]
    joint = over_seeds(results)
    assert [(one.shots, spread.n) for one, spread in joint] == [(0, 3), (4, 3)]
    values = [one.value for one in results if one.shots == 4]
    assert len(set(values)) > 1
    assert joint[1][0].value == joint[1][1].mean == pytest.approx(sum(values) / 3)
    nothing = replace(results[0], value=None, low=None, high=None)
    assert over_seeds([nothing]) == [(nothing, None)]


def shown(task, k: int) -> list[tuple[str, ...]]:
    return [tuple(one.context for one in episode.demonstrations) for episode in task.episodes(6, k, 0)]


def test_another_order_shows_the_same_demonstrations_to_the_same_questions() -> None:
    task = make_task("novel_letters")
    assert in_order(task, 0) is task
    drawn, other, third = (shown(in_order(task, order), 8) for order in (0, 1, 2))
    assert [sorted(one) for one in drawn] == [sorted(one) for one in other] == [sorted(one) for one in third]
    assert drawn != other != third != drawn
    assert shown(in_order(task, 1), 8) == other
    assert all(episode.ideal is None for episode in in_order(task, 1).episodes(6, 8, 0))


def test_turned_is_the_share_of_questions_that_an_order_decides() -> None:
    def answered(right: str) -> Answered:
        return Answered(make_task("novel_symbols"), 4, 0, tuple(answers(right)), (), (), 0)

    assert turned([answered("1100"), answered("1010"), answered("1000")], accuracy()) == 0.5
    assert turned([answered("1100"), answered("1100")], accuracy()) == 0.0


def test_a_row_of_what_varies_says_what_was_turned_only_where_the_questions_are_the_same(
    small_tokenizer, copier
) -> None:
    tokenizer = small_tokenizer()
    model = copier(tokenizer.n_vocab, 200, order=2)
    made, drawn = make_task("novel_symbols"), make_task("arithmetic_2d_add")
    settings = {"shots": (4,), "limit": 10}
    seeds = [one for seed in (0, 1) for one in run.evaluate(model, tokenizer, made, seed=seed, **settings)]
    (row,) = vary(seeds)
    assert (row.task, row.shots, row.spread.n, row.turned) == ("novel_symbols", 4, 2, None)
    orders = [
        one for order in (0, 1) for one in run.evaluate(model, tokenizer, in_order(made, order), seed=0, **settings)
    ]
    (row,) = vary(orders)
    assert row.turned is not None
    assert [one.answers[0].example for one in orders] == [orders[0].answers[0].example] * 2
    assert drawn.episodes(3, 2, 0)[0].example == drawn.episodes(3, 2, 1)[0].example  # drawn tasks ask the same


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


def test_a_written_answer_is_paired_too() -> None:
    def wrote(*texts: str) -> list[Answer]:
        return [Answer(example=Example(f"q{i}", "?", (" 4",)), text=text) for i, text in enumerate(texts)]

    found = compare(wrote(" 4", " 5"), wrote(" 4", " 4"), written_exactly(), seed=0)
    assert (found.only_first, found.only_second, found.p_value) == (0, 1, 1.0)
