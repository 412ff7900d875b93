from __future__ import annotations

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.best_shots import best_shots, candidates
from fewshot.evaluate.demonstrations import drawn_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.task import Task

SETTINGS = {"limit": 40, "seed": 0, "batch_size": 4}


def asked(prefix: str, n: int) -> list[Example]:
    """Questions whose answer is the letter that was asked for; a copier finds it if it was shown."""
    letters = "abcdefgh"
    return [
        Example(f"{prefix}{i}", f"{letters[i % 8]} ->", tuple(f" {x}" for x in "12345678"), i % 8) for i in range(n)
    ]


def test_candidates_double_up_to_the_papers_k():
    assert candidates(50) == (1, 2, 4, 8, 16, 32, 50)
    assert candidates(16) == (1, 2, 4, 8, 16)
    assert candidates(1) == (1,)
    assert candidates(0) == (0,)


def test_the_best_k_is_that_of_the_development_set_and_its_own_questions(small_tokenizer, copier):
    tokenizer = small_tokenizer()
    model = copier(tokenizer.n_vocab, 900, order=5)  # "a -> "
    shown, dev = asked("d", 8), asked("v", 24)
    never = drawn_episodes("t", asked("e", 8), [])  # the evaluated set must not be asked
    task = Task(name="t", kind="choose", metrics=(accuracy("sum"),), source="", episodes=never,
                dev=drawn_episodes("t", dev, [Example(one.id, "x" + one.context, one.completions, one.gold)
                                              for one in shown]))  # fmt: skip
    best, values = best_shots(model, tokenizer, task, (0, 1, 8), **SETTINGS)
    assert best == 8
    assert values[0] < values[1] < values[8] == 1.0


def test_a_task_without_a_development_set_is_refused(small_tokenizer, copier):
    task = Task(name="t", kind="choose", metrics=(accuracy(),), source="", episodes=drawn_episodes("t", [], []))
    with pytest.raises(BadValue, match="t has no development set"):
        best_shots(copier(97, 99, order=2), small_tokenizer(), task, (1,), **SETTINGS)
