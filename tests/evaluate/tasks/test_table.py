from __future__ import annotations

import pytest

from fewshot.base.errors import BadValue, UnknownName
from fewshot.evaluate.tasks import arithmetic, novel, scramble
from fewshot.evaluate.tasks.table import TASKS, make_task

BY_RULE = {**arithmetic.TASKS, **scramble.TASKS, **novel.TASKS}
PAPER = {"2D+", "2D-", "3D+", "3D-", "4D+", "4D-", "5D+", "5D-", "2Dx", "1DC", "CL", "A1", "A2", "RI", "RW"}


def test_tasks_by_rule_have_their_own_names_and_the_papers_rows():
    tasks = {name: make_task(name) for name in BY_RULE}
    assert all(name == task.name for name, task in tasks.items())
    assert {task.paper_name for task in tasks.values() if task.paper_name} == PAPER


@pytest.mark.parametrize("name", BY_RULE)
def test_every_task_by_rule_gives_as_many_questions_and_shots_as_asked(name):
    episodes = make_task(name).episodes(7, 5, 0)
    assert len(episodes) == 7
    assert all(len(one.demonstrations) == 5 for one in episodes)


@pytest.mark.parametrize("name", sorted(set(TASKS) - set(BY_RULE)))
def test_every_other_task_says_which_files_it_needs(name):
    with pytest.raises(BadValue, match=f"{name} needs --data FOLDER, the folder that holds "):
        make_task(name)


def test_a_misspelt_task_is_told_the_nearest():
    with pytest.raises(UnknownName, match="nearest: 'novel_symbols'"):
        make_task("novel_symbol")
