"""All tasks by name. In: a name. Out: its `Task`. A family's file lists its tasks; here the lists are joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fewshot.base.errors import look_up
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks import arithmetic, lambada, novel, scramble

TASKS: dict[str, Callable[..., Task]] = {**arithmetic.TASKS, **scramble.TASKS, **lambada.TASKS, **novel.TASKS}


def make_task(name: str, *, data: Path | None = None) -> Task:
    """The task of that name; `data` is the folder of original files, for the tasks that have any.

    Raises UnknownName for a name that is not in the table, BadValue or BadFile where a task needs a file.
    """
    return look_up("task", name, TASKS)(data=data)
