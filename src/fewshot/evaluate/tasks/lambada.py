"""LAMBADA: the last word of a passage. In: the folder with its files. Out: one task, scored as perplexity.

Zero-shot is the plain passage; with demonstrations it is a cloze that says that one word is wanted.
Source: Paperno et al. 2016; Brown et al. 2020, section 3.1.2 and figure 3.2.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, Found, needed
from fewshot.evaluate.demonstrations import drawn_episodes, harness_episodes, kept_apart
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import greedy_accuracy, perplexity
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

TEST_FILES = ("lambada_test.jsonl", "lambada_test_plain_text.txt")
DEVELOPMENT_FILES = ("lambada_development.jsonl", "lambada_development_plain_text.txt")

_PASSAGE = re.compile(r"(.*\S)(\s+)(\S+)", re.DOTALL)


def read_lambada(file: Found) -> list[Example]:
    """Return the passages of a file of {"text": ...} lines, or of plain lines, each split before its last word.

    The word takes the space before it; a line break before it stays with the passage.
    """
    if file.kind == ".txt":
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


def _harness_form(plain: Example) -> Example:
    """In a demonstration the harness puts its delimiter, a space, before the word that brings its own."""
    return replace(plain, shown=f"{plain.context} {plain.completions[0]}")


def make_lambada(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return LAMBADA from `data`, which holds its test file and, if it is there, its development file.

    The paper draws demonstrations from the development set. Without that file one passage in five of the test set is
    kept for demonstrations and not evaluated. The harness's form is the plain passage, also with demonstrations.
    """
    data = needed("lambada", data, *TEST_FILES)
    test, development = data.need("lambada", *TEST_FILES), data.find(*DEVELOPMENT_FILES)
    passages = read_lambada(test)
    origin = development.short if development else "a fifth of it, kept apart"
    if protocol is HARNESS:
        plain = [_harness_form(one.zero_shot) for one in passages if one.zero_shot]
        return Task(
            name="lambada",
            paper_name="LAMBADA",
            protocol=protocol,
            kind="perplexity",
            metrics=(greedy_accuracy("acc"), perplexity("completion")),
            episodes=harness_episodes("lambada", plain, plain),
            source=test.short,
            delimiter="\n\n",
        )
    evaluated, training = (passages, read_lambada(development)) if development else kept_apart("lambada", passages)
    return Task(
        name="lambada",
        paper_name="LAMBADA",
        kind="perplexity",
        metrics=(greedy_accuracy(), perplexity()),
        episodes=drawn_episodes("lambada", evaluated, training),
        source=f"{test.short}, demonstrations from {origin}",
        description="Fill in blank:",
        delimiter="\n\n",
        default_shots=15,
    )


TASKS = {"lambada": make_lambada}
