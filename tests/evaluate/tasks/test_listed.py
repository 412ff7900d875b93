"""The list of all tasks."""

from __future__ import annotations

import pytest

from fewshot.evaluate.tasks.listed import list_tasks
from fewshot.evaluate.tasks.table import TASKS


def test_every_task_is_listed_once_with_its_files_and_the_score_of_a_guess() -> None:
    rows = {row.name: row for row in list_tasks()}
    assert list(rows) == sorted(TASKS)
    assert rows["arithmetic_2d_add"].files == "made by rule"
    assert rows["novel_symbols"].chance == pytest.approx(1 / 16)
    assert (rows["boolq"].files, rows["boolq"].chance) == ("BoolQ/val.jsonl or boolq/dev.jsonl or dev.jsonl", 0.5)
    assert rows["lambada"].chance is None
