"""The list of all tasks. In: the table. Out: a row for each task: its files, and what a guess scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fewshot.evaluate.data.files import NeedsData
from fewshot.evaluate.tasks.table import TASKS, make_task

# The share of right answers of a guess, for sets in files whose questions all have the same number of choices
CHANCE = {
    **dict.fromkeys(("hellaswag", "openbookqa", "race_h", "race_m"), 1 / 4),
    **dict.fromkeys(("story_cloze", "winograd", "winogrande", "piqa", "boolq", "copa", "rte", "wic", "wsc"), 1 / 2),
    **dict.fromkeys(("cb", "anli_r1", "anli_r2", "anli_r3"), 1 / 3),
    "sat_analogies": 1 / 5,
}


@dataclass(frozen=True)
class TaskRow:
    """One task: the files that it is read from, or how it is made; the main metric of a guess, where it is known."""

    name: str
    files: str
    chance: float | None


def list_tasks() -> Iterator[TaskRow]:
    """Yield a row for every task, in the order of names."""
    for name in sorted(TASKS):
        try:
            task = make_task(name)
            yield TaskRow(name, task.source, task.chance)
        except NeedsData as error:
            yield TaskRow(name, error.files, CHANCE.get(name))
