from __future__ import annotations

import pytest

from fewshot.base.errors import UnknownName
from fewshot.evaluate.tasks.novel import FAMILIES
from fewshot.evaluate.tasks.table import TASKS, make_task

PAPER = {"2D+", "2D-", "3D+", "3D-", "4D+", "4D-", "5D+", "5D-", "2Dx", "1DC", "CL", "A1", "A2", "RI", "RW", "LAMBADA"}


def test_every_task_is_made_under_its_own_name_and_the_papers_rows_are_there(shared_data):
    tasks = {name: make_task(name, data=shared_data / "eval" / "lambada") for name in TASKS}
    assert all(name == task.name for name, task in tasks.items())
    assert {task.paper_name for task in tasks.values() if task.paper_name} == PAPER
    assert len(tasks) == len(PAPER) + len(FAMILIES)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "lambada"])
def test_every_task_without_files_gives_as_many_questions_and_shots_as_asked(name):
    episodes = make_task(name).episodes(7, 5, 0)
    assert len(episodes) == 7
    assert all(len(one.demonstrations) == 5 for one in episodes)


def test_a_misspelt_task_is_told_the_nearest():
    with pytest.raises(UnknownName, match="nearest: 'novel_symbols'"):
        make_task("novel_symbol")
