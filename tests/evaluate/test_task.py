from __future__ import annotations

from dataclasses import replace

from fewshot.evaluate.demonstrations import drawn_episodes, harness_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.task import Task, on_items, paired_with


def examples(prefix: str, n: int) -> list[Example]:
    return [Example(f"{prefix}{i}", f"question {prefix}{i}?", (" yes", " no"), i % 2) for i in range(n)]


def test_a_task_on_some_items_keeps_the_demonstrations_that_they_have_among_all():
    whole = Task(name="t", kind="choose", metrics=(), source="",
                 episodes=harness_episodes("t", examples("e", 9), examples("d", 40)))  # fmt: skip
    some = on_items(whole, {"e3", "e7", "absent"})
    expected = {one.example.id: one for one in whole.episodes(9, 5, 0)}
    assert some.episodes(9, 5, 0) == [expected["e3"], expected["e7"]]
    assert some.episodes(1, 5, 0) == [expected["e3"]]


def test_a_task_under_a_second_protocol_has_the_questions_and_k_of_the_first():
    first = Task(name="t", kind="choose", metrics=(), source="", default_shots=7,
                 episodes=drawn_episodes("t", examples("e", 9), examples("d", 40)))  # fmt: skip
    second = replace(first, episodes=harness_episodes("t", examples("e", 12), examples("d", 40)), default_shots=0)
    paired = paired_with(second, first, limit=4)
    ids = {episode.example.id for episode in first.episodes(4, 0, 0)}
    assert {episode.example.id for episode in paired.episodes(99, 0, 0)} == ids
    assert len(ids) == 4
    assert paired.default_shots == 7
