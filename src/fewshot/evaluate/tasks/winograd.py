"""Winograd schemas and Winogrande: whom a pronoun means. In: their files. Out: tasks of choosing by partial scoring.

Each candidate stands in the pronoun's place, in a context of its own; what is compared is the rest of the sentence.
Source: Levesque et al. 2012, Sakaguchi et al. 2019, Trinh & Le 2018; Brown et al. 2020, section 3.4 and appendix G.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from xml.etree import ElementTree

from fewshot.base.errors import BadFile, check
from fewshot.evaluate.data.files import Data, DataFile, Row, require_data
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Splits, find_split, require_split
from fewshot.evaluate.demonstrations import own_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC, Form, form_of

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


WriteGap = Callable[[str], str]  # what stands between the candidate and the rest of the sentence, given that rest


def _space(rest: str) -> str:
    """Return a space, none before closing punctuation."""
    return "" if rest[:1] in CLOSING else " "


def read_winograd(file: DataFile, *, begins: Callable[[str], bool], gap: WriteGap) -> list[Example]:
    """Return the schemas of the collection, or of lines of {"context_options", "continuation", "gold"}.

    `begins` says of the text before a pronoun whether the pronoun begins a sentence.
    """
    if file.suffix == ".jsonl":
        return read_rendered(file, gap=gap)
    try:
        schemas = ElementTree.fromstring(file.text()).findall("schema")
    except ElementTree.ParseError as error:
        raise BadFile(f"{file} is not XML: {error}") from None
    if not schemas:
        raise BadFile(f"{file} holds no <schema>")
    return [
        _schema(f"{file} schema {n}", str(n), schema, begins, gap)
        for n, schema in enumerate(schemas[:N_SCHEMAS], start=1)
    ]


def _schema(
    where: str, name: str, schema: ElementTree.Element, begins: Callable[[str], bool], gap: WriteGap
) -> Example:
    before, pronoun, rest = (" ".join(schema.findtext(f"text/{part}", "").split()) for part in ("txt1", "pron", "txt2"))
    options = [" ".join((answer.text or "").split()) for answer in schema.findall("answers/answer")]
    letter = schema.findtext("correctAnswer", "").strip(" .\n")
    if not pronoun or not rest or len(options) != 2 or letter not in ("A", "B"):
        raise BadFile(f"{where} must have a pronoun, a text after it, two answers and the letter of the right one")
    contexts = [f"{before} {in_place(option, pronoun, begins(before))}".strip() for option in options]
    return partial_example(name, contexts, rest, "AB".index(letter), gap)


def _begins_sentence(before: str) -> bool:
    return not before or before[-1] in '.!?"'


def in_place(option: str, pronoun: str, begins: bool) -> str:
    """Return the candidate in the pronoun's place: with 's for a possessive, a capital if it begins a sentence."""
    if pronoun.lower() in POSSESSIVES:
        option += "'s"
    first, space, others = option.partition(" ")
    return option if begins or first not in SMALL_WORDS else first.lower() + space + others


def read_rendered(file: DataFile, *, gap: WriteGap) -> list[Example]:
    """Return the examples of lines of {"context_options": [...], "continuation": ..., "gold": 0 or 1}."""

    def example(number: int, row: Row) -> Example:
        rest = row["continuation"].strip()
        return partial_example(f"{file.short}:{number}", row["context_options"], rest, row["gold"], gap)

    return file.parse_rows(example, context_options=[str], continuation=str, gold=int)


def partial_example(name: str, contexts: Sequence[str], rest: str, gold: int, gap: WriteGap) -> Example:
    """Return an example with a context for each candidate, and the same gap and rest after all of them."""
    return Example(name, contexts[0], (gap(rest) + rest,) * len(contexts), gold, contexts=tuple(contexts))


def read_winogrande(file: DataFile, *, gap: WriteGap) -> list[Example]:
    """Return the examples of lines with "sentence", "option1", "option2" and "answer", or as `read_rendered`."""
    if file.short.startswith("winogrande.jsonl"):
        return read_rendered(file, gap=gap)
    return file.parse_rows(
        lambda _, row: _blank(row, gap),
        qID=ID,
        sentence=str,
        option1=str,
        option2=str,
        answer=OneOf(("1", "2")),
    )


def _blank(row: Row, gap: WriteGap) -> Example:
    before, blank, rest = row["sentence"].partition("_")
    check(bool(blank), f"{row['qID']} has no _ in its sentence")
    contexts, rest = [before + row["option1"], before + row["option2"]], rest.strip()
    return partial_example(str(row["qID"]), contexts, rest, int(row["answer"]) - 1, gap)


SUM = (accuracy("sum"),)
WINOGRAD_FORMS = {
    GPT3: Form(
        read=partial(read_winograd, begins=_begins_sentence, gap=_space),
        metrics=SUM,
        episodes=lambda name, splits: own_episodes(name, splits.evaluated.examples),
    ),
    HARNESS: Form(  # the rest of a sentence has a space of its own, behind that of the delimiter
        read=partial(read_winograd, begins=lambda before: before.endswith("."), gap=lambda rest: "  "), metrics=ACC
    ),
}
WINOGRANDE_FORMS = {
    GPT3: Form(read=partial(read_winogrande, gap=_space), metrics=SUM),
    HARNESS: Form(read=partial(read_winogrande, gap=lambda rest: " "), metrics=ACC),
}


def make_winograd(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return Winograd on its 273 schemas; demonstrations of each are others of the same set."""
    form, data = form_of("winograd", WINOGRAD_FORMS, protocol), require_data("winograd", data, *WINOGRAD_FILES)
    splits = Splits(require_split("winograd", data, form.read, *WINOGRAD_FILES))
    source = f"{splits.evaluated.name}, demonstrations from the same set"
    return form.task("winograd", protocol, splits, paper_name="Winograd", source=source, default_shots=7, chance=0.5)


def make_winogrande(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return Winogrande on its development set, with demonstrations from its largest training set."""
    form, data = form_of("winogrande", WINOGRANDE_FORMS, protocol), require_data("winogrande", data, *WINOGRANDE_FILES)
    splits = Splits(
        require_split("winogrande", data, form.read, *WINOGRANDE_FILES),
        find_split(data, form.read, WINOGRANDE_TRAINING),
        harness_excludes=True,
    )
    return form.task("winogrande", protocol, splits, paper_name="Winogrande", default_shots=50, chance=0.5)


TASKS = {"winograd": make_winograd, "winogrande": make_winogrande}
