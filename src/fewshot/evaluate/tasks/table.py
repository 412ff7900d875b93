"""All tasks by name. In: a name. Out: its `Task`, or a row for each task: its files, and what a guess scores.

A family's file lists its tasks; here the lists are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from fewshot.base.errors import look_up
from fewshot.evaluate.data.files import Data, NeedsData
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks import (
    analogies,
    arithmetic,
    closed_book,
    commonsense,
    drop,
    hellaswag,
    lambada,
    nli,
    novel,
    ptb,
    race,
    reading,
    scramble,
    story_cloze,
    superglue,
    superglue_reading,
    translation,
    wikitext,
    winograd,
    wsc,
)

TASKS: dict[str, Callable[..., Task]] = {
    **arithmetic.TASKS,
    **scramble.TASKS,
    **hellaswag.TASKS,
    **lambada.TASKS,
    **story_cloze.TASKS,
    **closed_book.TASKS,
    **translation.TASKS,
    **winograd.TASKS,
    **commonsense.TASKS,
    **reading.TASKS,
    **drop.TASKS,
    **race.TASKS,
    **superglue.TASKS,
    **wsc.TASKS,
    **superglue_reading.TASKS,
    **nli.TASKS,
    **analogies.TASKS,
    **ptb.TASKS,
    **wikitext.TASKS,
    **novel.TASKS,
}

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


def make_task(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name under that protocol; `data` holds the original files, for the tasks that have any.

    Raises UnknownName for a name that is not in the table, BadValue or BadFile where a task needs a file.
    """
    return look_up("task", name, TASKS)(data=data, protocol=protocol)


def made_by_rule() -> dict[str, Task]:
    """Return the tasks that need no files, by name."""
    tasks = {}
    for name in sorted(TASKS):
        with suppress(NeedsData):
            tasks[name] = make_task(name)
    return tasks


def list_tasks() -> Iterator[TaskRow]:
    """Yield a row for every task, in the order of names."""
    for name in sorted(TASKS):
        try:
            task = make_task(name)
            yield TaskRow(name, task.source, task.chance)
        except NeedsData as error:
            yield TaskRow(name, error.files, CHANCE.get(name))
