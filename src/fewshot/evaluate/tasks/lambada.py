"""LAMBADA: the last word of a passage. In: the folder with its JSON lines. Out: one task, scored as perplexity.

Zero-shot is the plain passage; with demonstrations it is a cloze that says that one word is wanted.
Source: Paperno et al. 2016; Brown et al. 2020, section 3.1.2 and figure 3.2.
"""

from __future__ import annotations

import re
from pathlib import Path

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.task import Example, Task, drawn_episodes, kept_apart
from fewshot.evaluate.tasks.released import read_rows, released_file

TEST_FILE = "lambada_test.jsonl"
DEMONSTRATION_FILE = "lambada_development.jsonl"

_PASSAGE = re.compile(r"(.*\S)(\s+)(\S+)", re.DOTALL)


def read_lambada(path: Path) -> list[Example]:
    """The passages of a file of {"text": ...} lines, each split before its last word.

    The word takes the space before it; a line break before it stays with the passage.
    """
    examples = []
    for number, row in enumerate(read_rows(path, "text"), start=1):
        parts = _PASSAGE.fullmatch(row["text"].strip())
        if parts is None:
            raise BadFile(f"{path} passage {number} has no last word to leave out: {row['text']!r}")
        passage, gap, word = parts.groups()
        name = f"{path.name}:{number}"
        plain = Example(name, passage, (f" {word}",)) if gap == " " else Example(name, passage + gap, (word,))
        examples.append(Example(name, f"{passage}{gap}____. ->", (f" {word}",), zero_shot=plain))
    return examples


def make_lambada(*, data: Path | None = None) -> Task:
    """LAMBADA from `data`, a folder with lambada_test.jsonl and, if it is there, lambada_development.jsonl.

    The paper draws demonstrations from the development set. Without that file one passage in five of the test set is
    kept for demonstrations and not evaluated.
    """
    if data is None:
        raise BadValue(f"lambada needs --data FOLDER, the folder that holds {TEST_FILE}")
    test, development = released_file(data, TEST_FILE), released_file(data, DEMONSTRATION_FILE)
    if test is None:
        raise BadFile(f"{data} holds no {TEST_FILE}")
    passages = read_lambada(test)
    evaluated, training = (passages, read_lambada(development)) if development else kept_apart("lambada", passages)
    return Task(
        name="lambada",
        paper_name="LAMBADA",
        kind="perplexity",
        episodes=drawn_episodes("lambada", evaluated, training),
        source=f"{test.name}, demonstrations from {development.name if development else 'a fifth of it, kept apart'}",
        description="Fill in blank:",
        delimiter="\n\n",
        default_shots=15,
    )


TASKS = {"lambada": make_lambada}
