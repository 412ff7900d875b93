"""Winograd schemas and Winogrande: whom a pronoun means. In: their files. Out: tasks of choosing by partial scoring.

Each candidate stands in the pronoun's place, in a context of its own; what is compared is the rest of the sentence.
Source: Levesque et al. 2012, Sakaguchi et al. 2019, Trinh & Le 2018; Brown et al. 2020, section 3.4 and appendix G.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from xml.etree import ElementTree

from fewshot.base.errors import BadFile, check
from fewshot.evaluate.data.files import Data, Found, Row, needed
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Splits, find_split, need_split
from fewshot.evaluate.demonstrations import harness_episodes, own_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

WINOGRAD_FILES = ("WSCollection.xml", "winograd_wsc.jsonl")
N_SCHEMAS = 273  # the collection has grown to 285 since; the field compares the first 273
WINOGRANDE_FILES = ("winogrande_1.1/dev.jsonl", "winogrande.jsonl")
WINOGRANDE_TRAINING = "winogrande_1.1/train_xl.jsonl"

POSSESSIVES = {"my", "his", "her", "our", "their"}
SMALL_WORDS = {
    "A",
    "An",
    "The",
    "She",
    "He",
    "It",
    "They",
    "My",
    "His",
    "Her",
    "Their",
}  # capitals only begin a sentence
CLOSING = ".,;:!?')"  # what follows a word without a space


def read_winograd(file: Found, protocol: EvalProtocol) -> list[Example]:
    """Return the schemas of the collection, or of lines of {"context_options", "continuation", "gold"}."""
    if file.kind == ".jsonl":
        return read_rendered(file, protocol, harness_spaces=2)
    try:
        schemas = ElementTree.fromstring(file.text()).findall("schema")
    except ElementTree.ParseError as error:
        raise BadFile(f"{file} is not XML: {error}") from None
    if not schemas:
        raise BadFile(f"{file} holds no <schema>")
    return [_schema(f"{file} schema {n}", str(n), one, protocol) for n, one in enumerate(schemas[:N_SCHEMAS], start=1)]


def _schema(where: str, name: str, schema: ElementTree.Element, protocol: EvalProtocol) -> Example:
    before, pronoun, rest = (" ".join(schema.findtext(f"text/{part}", "").split()) for part in ("txt1", "pron", "txt2"))
    options = [" ".join((answer.text or "").split()) for answer in schema.findall("answers/answer")]
    letter = schema.findtext("correctAnswer", "").strip(" .\n")
    if not pronoun or not rest or len(options) != 2 or letter not in ("A", "B"):
        raise BadFile(f"{where} must have a pronoun, a text after it, two answers and the letter of the right one")
    begins = before.endswith(".") if protocol is HARNESS else not before or before[-1] in '.!?"'
    contexts = [f"{before} {in_place(option, pronoun, begins)}".strip() for option in options]
    return partial_example(name, contexts, rest, "AB".index(letter), _gap(rest, protocol, 2))


def in_place(option: str, pronoun: str, begins: bool) -> str:
    """Return the candidate as it stands for the pronoun: with 's for a possessive one, a capital if it begins a
    sentence.
    """
    if pronoun.lower() in POSSESSIVES:
        option += "'s"
    first, space, others = option.partition(" ")
    return option if begins or first not in SMALL_WORDS else first.lower() + space + others


def read_rendered(file: Found, protocol: EvalProtocol, *, harness_spaces: int) -> list[Example]:
    """Return lines of {"context_options": [...], "continuation": ..., "gold": 0 or 1}."""

    def example(number: int, row: Row) -> Example:
        rest = row["continuation"].strip()
        gap = _gap(rest, protocol, harness_spaces)
        return partial_example(f"{file.short}:{number}", row["context_options"], rest, row["gold"], gap)

    return file.each(example, context_options=[str], continuation=str, gold=int)


def partial_example(name: str, contexts: Sequence[str], rest: str, gold: int, gap: str) -> Example:
    """Return one context per candidate, the same gap and rest after each."""
    return Example(name, contexts[0], (gap + rest,) * len(contexts), gold, contexts=tuple(contexts))


def _gap(rest: str, protocol: EvalProtocol, harness_spaces: int) -> str:
    """Return a space, none before closing punctuation; the harness has one or, where the rest keeps its own, two."""
    if protocol is HARNESS:
        return " " * harness_spaces
    return "" if rest[:1] in CLOSING else " "


def read_winogrande(file: Found, protocol: EvalProtocol) -> list[Example]:
    """Return lines of {"sentence": "... _ ...", "option1", "option2", "answer"}, or as `read_rendered`."""
    if file.short.startswith("winogrande.jsonl"):
        return read_rendered(file, protocol, harness_spaces=1)
    return file.each(
        lambda _, row: _blank(row, protocol),
        qID=ID,
        sentence=str,
        option1=str,
        option2=str,
        answer=OneOf(("1", "2")),
    )


def _blank(row: Row, protocol: EvalProtocol) -> Example:
    before, blank, rest = row["sentence"].partition("_")
    check(bool(blank), f"{row['qID']} has no _ in its sentence")
    contexts, rest = [before + row["option1"], before + row["option2"]], rest.strip()
    return partial_example(str(row["qID"]), contexts, rest, int(row["answer"]) - 1, _gap(rest, protocol, 1))


def _task(name: str, protocol: EvalProtocol, **particular: Any) -> Task:
    return Task(
        name=name,
        protocol=protocol,
        kind="choose",
        metrics=(accuracy("sum", name="acc" if protocol is HARNESS else "accuracy"),),
        delimiter="\n\n",
        chance=0.5,
        **particular,
    )


def make_winograd(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the 273 schemas; each is shown others of the same set."""
    split = need_split(
        "winograd",
        needed("winograd", data, *WINOGRAD_FILES),
        partial(read_winograd, protocol=protocol),
        *WINOGRAD_FILES,
    )
    schemas = split.examples
    return _task(
        "winograd",
        protocol,
        paper_name="Winograd",
        episodes=harness_episodes("winograd", schemas, schemas)
        if protocol is HARNESS
        else own_episodes("winograd", schemas),
        source=f"{split.name}, demonstrations from the same set",
        default_shots=7,
    )


def make_winogrande(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return Winogrande's development set, with demonstrations from its largest training set."""
    data = needed("winogrande", data, *WINOGRANDE_FILES)
    read = partial(read_winogrande, protocol=protocol)
    splits = Splits(
        need_split("winogrande", data, read, *WINOGRANDE_FILES),
        find_split(data, read, WINOGRANDE_TRAINING),
        harness_excludes=True,
    )
    return _task(
        "winogrande",
        protocol,
        paper_name="Winogrande",
        episodes=splits.episodes("winogrande", protocol),
        source=splits.source(protocol),
        default_shots=50,
    )


TASKS = {"winograd": make_winograd, "winogrande": make_winogrande}
