from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_evaluations import answers

from fewshot.evaluate import run
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.result import TaskAnswers
from fewshot.evaluate.tasks.table import make_task
from fewshot.evaluate.variation import in_order, over_seeds, repeats, spread, turned, vary


def test_spread_is_students_interval_worked_by_hand() -> None:
    found = spread([0.4, 0.5, 0.6])
    assert (found.n, found.mean) == (3, pytest.approx(0.5))
    assert found.deviation == pytest.approx(0.1)
    assert found.half_width == pytest.approx(4.3027 * 0.1 / math.sqrt(3))
    assert spread([0.4]).half_width is None


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
    def answered(right: str) -> TaskAnswers:
        return TaskAnswers(make_task("novel_symbols"), 4, 0, tuple(answers(right)), (), (), 0)

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


def test_each_seed_has_the_drawn_order_and_the_first_one_all_orders_of_more_than_one_demonstration() -> None:
    assert repeats((0, 1, 4), (7, 8), 3) == [(7, 0, [0, 1, 4]), (8, 0, [0, 1, 4]), (7, 1, [4]), (7, 2, [4])]
    assert repeats((0, 1), (7,), 3) == [(7, 0, [0, 1])]
