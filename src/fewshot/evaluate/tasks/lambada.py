"""LAMBADA: the last word of a passage. In: the folder with its files. Out: one task, scored as perplexity.

Zero-shot is the plain passage; with demonstrations it is a cloze that says that one word is wanted.
Source: Paperno et al. 2016; Brown et al. 2020, section 3.1.2 and figure 3.2.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, DataFile, require_data
from fewshot.evaluate.data.splits import Splits, find_split, require_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import greedy_accuracy, perplexity
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

TEST_FILES = ("lambada_test.jsonl", "lambada_test_plain_text.txt")
DEVELOPMENT_FILES = ("lambada_development.jsonl", "lambada_development_plain_text.txt")

_PASSAGE = re.compile(r"(.*\S)(\s+)(\S+)", re.DOTALL)


def read_lambada(file: DataFile) -> list[Example]:
    """Return the passages of a file of {"text": ...} lines, or of plain lines, each split before its last word.

    With demonstrations they are clozes, without them plain passages. The word takes the space before it; a line break
    before it stays with the passage.
    """
    if file.suffix == ".txt":
        texts = [line for line in file.text().split("\n") if line.strip()]
    else:
        texts = [row["text"] for row in file.rows(text=str)]
    examples = []
    for number, text in enumerate(texts, start=1):
        parts = _PASSAGE.fullmatch(text.strip())
        if parts is None:
            raise BadFile(f"{file} passage {number} has no last word to leave out: {text!r}")
        passage, gap, word = parts.groups()
        name = f"{file.short}:{number}"
        plain = Example(name, passage, (f" {word}",)) if gap == " " else Example(name, passage + gap, (word,))
        examples.append(Example(name, f"{passage}{gap}____. ->", (f" {word}",), zero_shot=plain))
    return examples


def read_lambada_as_harness(file: DataFile) -> list[Example]:
    """Return the plain passages of a file; a demonstration has two spaces, of the delimiter and of the word itself."""
    passages = [example.zero_shot for example in read_lambada(file) if example.zero_shot]
    return [replace(passage, as_demonstration=f"{passage.context} {passage.completions[0]}") for passage in passages]


FORMS = {
    GPT3: Form(
        read=read_lambada,
        kind="perplexity",
        metrics=(greedy_accuracy(), perplexity()),
        description="Fill in blank:",
        default_shots=15,
    ),
    HARNESS: Form(
        read=read_lambada_as_harness,
        kind="perplexity",
        metrics=(greedy_accuracy("acc"), perplexity("completion")),
        uses_training=False,
    ),
}


def make_lambada(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return LAMBADA from `data`, which holds its test file and, if it is there, its development file.

    The paper draws demonstrations from the development set. Without that file one passage in five of the test set is
    kept for demonstrations and not evaluated. The harness's form is the plain passage, also with demonstrations.
    """
    form, data = form_of("lambada", FORMS, protocol), require_data("lambada", data, *TEST_FILES)
    development = find_split(data, form.read, *DEVELOPMENT_FILES) if form.uses_training else None
    splits = Splits(require_split("lambada", data, form.read, *TEST_FILES), development)
    source = splits.source(protocol) if form.uses_training else splits.evaluated.name
    return form.task("lambada", protocol, splits, paper_name="LAMBADA", source=source)


TASKS = {"lambada": make_lambada}
