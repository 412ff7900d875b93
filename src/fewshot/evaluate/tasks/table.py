"""All tasks by name. In: a name. Out: its `Task`. A family's file lists its tasks; here the lists are joined."""

from __future__ import annotations

from collections.abc import Callable

from fewshot.base.errors import look_up
from fewshot.evaluate.data.files import Data
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


def make_task(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name under that protocol; `data` holds the original files, for the tasks that have any.

    Raises UnknownName for a name that is not in the table, BadValue or BadFile where a task needs a file.
    """
    return look_up("task", name, TASKS)(data=data, protocol=protocol)
