"""PIQA, ARC, OpenBookQA: what is physically sensible, and what pupils learn. In: their files. Out: tasks of choosing.

Source: Bisk et al. 2019, Clark et al. 2018, Mihaylov et al. 2018; Brown et al. 2020, section 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fewshot.base.errors import BadFile, check
from fewshot.evaluate.data.files import Data, DataFile, Row, require_data
from fewshot.evaluate.data.schema import ID, check_schema
from fewshot.evaluate.data.splits import ReadExamples, Splits, find_split, require_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC_AND_NORM, ACCURACY, Form, form_of

PIQA_FILES = ("physicaliqa-train-dev/dev.jsonl", "piqa/valid.jsonl")
PIQA_TRAINING = ("physicaliqa-train-dev/train.jsonl", "piqa/train.jsonl")
PIQA_LABELS = {"dev": "dev-labels.lst", "valid": "valid-labels.lst", "train": "train-labels.lst"}
ARC_FILES = {
    "arc_easy": ("ARC (Easy)", "ARC-Easy", "arc_easy.jsonl"),
    "arc_challenge": ("ARC (Challenge)", "ARC-Challenge", "arc_challenge.jsonl"),
}
PUPIL = {"id": ID, "question": {"stem": str, "choices": [{"text": str, "label": str}]}, "answerKey": str}


def read_piqa(file: DataFile, data: Data, *, prompt: str, clean: Callable[[str], str]) -> list[Example]:
    """Return the examples of lines of {"goal", "sol1", "sol2"}, whose labels, 0 or 1, are in a file beside them."""
    rows = file.rows(goal=str, sol1=str, sol2=str)
    folder, _, name = file.name.rpartition("/")
    labels_file = data.require("piqa", "/".join(filter(None, (folder, PIQA_LABELS[name.partition(".")[0]]))))
    labels = labels_file.text().split()
    if len(labels) != len(rows) or not set(labels) <= {"0", "1"}:
        raise BadFile(f"{labels_file} must hold {len(rows):,} labels, each 0 or 1, as {file.name} has so many goals")
    return [
        Example(
            f"{name}:{n}",
            prompt.format(goal=clean(row["goal"])),
            (f" {clean(row['sol1'])}", f" {clean(row['sol2'])}"),
            int(labels[n - 1]),
        )
        for n, row in enumerate(rows, start=1)
    ]


def read_pupils(file: DataFile, *, question: bool) -> list[Example]:
    """Return questions of ARC or OpenBookQA, in their original layout or as lines of {"query", "choices", "gold"}.

    With `question` the context is `Question: ...` and `Answer:`; else it is the bare stem, which often runs on into
    the choice.
    """
    return file.parse_rows(
        lambda n, row: _pupil_original(row, question) if "answerKey" in row else _pupil_rendered(file, n, row, question)
    )


def _pupil_original(row: Row, question: bool) -> Example:
    check_schema(row, PUPIL)
    choices = row["question"]["choices"]
    letters, key = [choice["label"] for choice in choices], row["answerKey"].strip()
    check(key in letters, f"answerKey is {key!r}, {row['id']} has the choices {', '.join(letters)}")
    texts = [choice["text"] for choice in choices]
    return _pupil(str(row["id"]), row["question"]["stem"], texts, letters.index(key), question)


def _pupil_rendered(file: DataFile, number: int, row: Row, question: bool) -> Example:
    check_schema(row, {"query": str, "choices": [str], "gold": int})
    stem = row["query"].removeprefix("Question: ")
    return _pupil(f"{file.short}:{number}", stem, row["choices"], row["gold"], question)


def _pupil(name: str, stem: str, choices: Sequence[str], gold: int, question: bool) -> Example:
    context = f"Question: {stem}\nAnswer:" if question else stem
    return Example(name, context, tuple(f" {choice}" for choice in choices), gold)


def _chance(examples: Sequence[Example]) -> float:
    return sum(1 / len(example.completions) for example in examples) / len(examples)


PIQA_FORMS = {
    GPT3: Form(read=partial(read_piqa, prompt="{goal}", clean=str.strip), metrics=ACCURACY, chance=_chance),
    HARNESS: Form(
        read=partial(read_piqa, prompt="Question: {goal}\nAnswer:", clean=str), metrics=ACC_AND_NORM, chance=_chance
    ),
}
PUPIL_FORMS = {
    GPT3: Form(
        read=read_pupils,
        metrics=(accuracy("unconditional"),),
        answer_context="Answer:",  # P(choice | question) is divided by P(choice | this)
        chance=_chance,
    ),
    HARNESS: Form(read=read_pupils, metrics=ACC_AND_NORM, chance=_chance),
}


def make_piqa(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return PIQA on its development set, as the labels of its test set are not public."""
    form, data = form_of("piqa", PIQA_FORMS, protocol), require_data("piqa", data, *PIQA_FILES)
    read = partial(form.read, data=data)
    training = find_split(data, read, *PIQA_TRAINING)
    splits = Splits(require_split("piqa", data, read, *PIQA_FILES), training, harness_excludes=True)
    return form.task("piqa", protocol, splits, paper_name="PIQA", default_shots=50)


def make_arc(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name on ARC's test set."""
    paper_name, original, rendered = ARC_FILES[name]
    form, data = form_of(name, PUPIL_FORMS, protocol), require_data(name, data, f"{original}-Test.jsonl")
    read = partial(form.read, question=True)
    splits = _splits(name, data, read, (f"{original}-Test.jsonl", rendered), f"{original}-Train", f"{original}-Dev")
    return form.task(name, protocol, splits, paper_name=paper_name, default_shots=50)


def make_openbookqa(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return OpenBookQA on its test set, without the book's facts."""
    form, data = form_of("openbookqa", PUPIL_FORMS, protocol), require_data("openbookqa", data, "Main/test.jsonl")
    read = partial(form.read, question=False)
    splits = _splits("openbookqa", data, read, ("Main/test.jsonl", "openbook_qa.jsonl"), "Main/train", "Main/dev")
    return form.task("openbookqa", protocol, splits, paper_name="OpenBookQA", default_shots=100)


def _splits(name: str, data: Data, read: ReadExamples, test: Sequence[str], training: str, dev: str) -> Splits:
    return Splits(
        require_split(name, data, read, *test),
        find_split(data, read, f"{training}.jsonl"),
        find_split(data, read, f"{dev}.jsonl"),
    )


TASKS: dict[str, Callable[..., Task]] = {
    "piqa": make_piqa,
    "arc_easy": partial(make_arc, "arc_easy"),
    "arc_challenge": partial(make_arc, "arc_challenge"),
    "openbookqa": make_openbookqa,
}
