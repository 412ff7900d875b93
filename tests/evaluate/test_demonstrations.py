from __future__ import annotations

from random import Random

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.demonstrations import drawn_episodes, harness_episodes, kept_apart, own_episodes
from fewshot.evaluate.example import Example


def examples(prefix: str, n: int) -> list[Example]:
    return [Example(f"{prefix}{i}", f"question {prefix}{i}?", (" yes", " no"), i % 2) for i in range(n)]


def test_more_shots_keep_the_former_demonstrations():
    episodes = drawn_episodes("t", examples("e", 5), examples("d", 40))
    for few, many in zip(episodes(5, 3, 7), episodes(5, 40, 7), strict=True):
        assert many.demonstrations[:3] == few.demonstrations
        assert len(set(many.demonstrations)) == 40


def test_demonstrations_never_come_from_the_evaluated_set():
    evaluated = examples("e", 6)
    episodes = drawn_episodes("t", evaluated, [*examples("d", 3), *evaluated])
    for episode in episodes(6, 50, 0):
        assert {one.id for one in episode.demonstrations} == {"d0", "d1", "d2"}


def test_demonstrations_are_redrawn_for_each_example_and_each_seed():
    episodes = drawn_episodes("t", examples("e", 20), examples("d", 40))
    draws = [episode.demonstrations for seed in (0, 1) for episode in episodes(20, 4, seed)]
    assert len(set(draws)) == 40


def test_a_draw_depends_on_nothing_but_task_example_and_seed():
    pool = examples("d", 40)
    alone = drawn_episodes("t", examples("e", 1), pool)(1, 4, 3)[0]
    among = {one.example.id: one for one in drawn_episodes("t", examples("e", 9), pool)(9, 4, 3)}
    assert among["e0"] == alone


def test_a_limit_takes_the_same_examples_for_every_seed_and_grows_without_exchange():
    episodes = drawn_episodes("t", examples("e", 30), examples("d", 9))
    few, many = ([one.example.id for one in episodes(n, 1, seed)] for n, seed in ((8, 0), (20, 1)))
    assert many[:8] == few
    assert few != [f"e{i}" for i in range(8)]


def test_shots_without_examples_to_draw_from_are_refused():
    episodes = drawn_episodes("t", examples("e", 3), [])
    assert len(episodes(3, 0, 0)) == 3
    with pytest.raises(BadValue, match="no examples left for demonstrations"):
        episodes(3, 1, 0)
    with pytest.raises(BadValue, match="limit is 0"):
        episodes(0, 0, 0)


def test_the_harnesss_demonstrations_come_from_one_generator_in_the_order_of_the_examples():
    pool, asked = examples("d", 40), examples("e", 3)
    rng = Random(1234)
    drawn = harness_episodes("t", asked, pool)(3, 4, 0)
    assert [list(one.demonstrations) for one in drawn] == [rng.sample(pool, 4) for _ in asked]
    rng = Random(1234)
    own = harness_episodes("t", asked, asked, excluding=True)(3, 2, 0)
    assert [list(one.demonstrations) for one in own] == [
        [shown for shown in rng.sample(asked, 3) if shown != one][:2] for one in asked
    ]
    with pytest.raises(BadValue, match="t has 3 examples for demonstrations, 4 are needed"):
        harness_episodes("t", asked, asked, excluding=True)(1, 3, 0)


def test_fixed_demonstrations_are_the_same_for_all_examples():
    episodes = drawn_episodes("t", examples("e", 9), examples("d", 40), fixed=True)
    assert len({one.demonstrations for one in episodes(9, 4, 0)}) == 1
    assert episodes(1, 4, 0)[0].demonstrations != episodes(1, 4, 1)[0].demonstrations


def test_a_set_without_other_examples_shows_its_own_but_never_the_one_that_is_asked():
    for episode in own_episodes("t", examples("e", 6))(6, 50, 0):
        assert {one.id for one in episode.demonstrations} == {f"e{i}" for i in range(6)} - {episode.example.id}


def test_kept_apart_splits_about_one_in_five_without_overlap():
    everything = examples("e", 2000)
    evaluated, demonstrations = kept_apart("t", everything)
    assert sorted(one.id for one in [*evaluated, *demonstrations]) == sorted(one.id for one in everything)
    assert 340 < len(demonstrations) < 460
