"""SuperGLUE's sets of choosing a word or one of two sentences. In: their folders of JSON lines. Out: tasks.

BoolQ, CB, COPA, RTE and WiC, evaluated on the validation files. Source: Wang et al. 2019; Brown et al. 2020,
section 3.7 and appendix G; the harness's forms lm_eval 0.4.13, tasks/super_glue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fewshot.evaluate.data.files import Data, DataFile, Row, require_data
from fewshot.evaluate.data.passages import in_folder
from fewshot.evaluate.data.schema import ID, Maybe, OneOf, check_schema
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric
from fewshot.evaluate.metrics.question_answering import class_f1
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC, ACCURACY, Form, form_of

SHOTS = 32  # the paper's K for all of SuperGLUE


@dataclass(frozen=True, kw_only=True)
class ChoiceTask:
    """A task of choosing: its files, the labels of its rows in the order of the answers, and its forms."""

    paper_name: str
    folder: str
    fields: tuple[str, ...]
    labels: tuple[Any, ...]
    forms: Mapping[EvalProtocol, Form]
    files: tuple[str, ...] = ()  # other names that its validation file may have

    @property
    def schemas(self) -> dict[str, Any]:
        """The schemas of its rows' values, labels aside."""
        return {
            **{field: int if field in ("start1", "end1") else str for field in self.fields},
            "idx": Maybe(ID),
        }

    @property
    def all_files(self) -> tuple[str, ...]:
        """The names that its validation file may have."""
        return (f"{self.folder}/val.jsonl", *self.files)


def _template(text: str) -> Callable[[Row], str]:
    return text.format_map


def _words(*words: str) -> Callable[[Row], tuple[str, ...]]:
    return lambda row: tuple(f" {word}" for word in words)


def sentence(text: str) -> str:
    """Return the text with a full stop, where it ends without a mark."""
    return text if text.endswith((".", "?", "!", '"', "'")) else f"{text}."


def _cb_prompt(row: Row) -> str:
    """Return the prompt of figure G.30, with the full stops that hypotheses lack in the file."""
    return f"{row['premise']}\nquestion: {sentence(row['hypothesis'])} true, false, or neither?\nanswer:"


def _copa_prompt(links: Mapping[str, str], row: Row) -> str:
    """Return the premise without its full stop, and the link to a cause or an effect."""
    return f"{row['premise'].strip()[:-1]} {links[row['question']]}"


def _copa_answers(space: str, row: Row) -> tuple[str, ...]:
    choices = (row["choice1"], row["choice2"])
    return tuple(f"{space}{choice[0].lower()}{choice[1:]}" for choice in choices)


def _wic_as_harness(row: Row) -> str:
    word = row["sentence1"][row["start1"] : row["end1"]]
    return (
        f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n"
        f"Question: Is the word '{word}' used in the same way in the two sentences above?\nAnswer:"
    )


_CLASSES = (0, 1, 2)


def read_choices(
    prompt: Callable[[Row], str], answers_of: Callable[[Row], tuple[str, ...]], file: DataFile, choice: ChoiceTask
) -> list[Example]:
    """Return the examples of a set of choosing, in SuperGLUE's layout or (BoolQ) in the set's own.

    `answers_of` returns an answer for each of the set's labels.
    """

    def example(number: int, row: Row) -> Example:
        row = _as_superglue(row)
        check_schema(row, {**choice.schemas, "label": OneOf(choice.labels)})
        answers = answers_of(row)
        gold = answers.index(answers[choice.labels.index(row["label"])])  # of equal ones the first, as it is chosen
        name = number if row.get("idx") is None else row["idx"]
        return Example(str(name), prompt(row), answers, gold)

    return file.parse_rows(example, **choice.schemas)


def _as_superglue(row: Row) -> Row:
    """Return the row with SuperGLUE's names: BoolQ's own files name the label differently.

    They also hold the title in a field of its own, which SuperGLUE puts before the passage.
    """
    if "label" in row or "title" not in row:
        return row
    return {"passage": f"{row['title']} -- {row['passage']}", "question": row["question"], "label": row["answer"]}


def _form(
    prompt: Callable[[Row], str], answers: Callable[[Row], tuple[str, ...]], metrics: tuple[Metric, ...], **other: Any
) -> Form:
    return Form(read=partial(read_choices, prompt, answers), metrics=metrics, **other)


CHOICES = {
    "boolq": ChoiceTask(
        paper_name="BoolQ",
        folder="BoolQ",
        files=("boolq/dev.jsonl", "dev.jsonl"),
        fields=("passage", "question"),
        labels=(False, True),
        forms={
            GPT3: _form(
                prompt=_template("{passage}\nquestion: {question}?\nanswer:"),
                answers=_words("no", "yes"),
                metrics=ACCURACY,
            ),
            HARNESS: _form(
                prompt=_template("{passage}\nQuestion: {question}?\nAnswer:"), answers=_words("no", "yes"), metrics=ACC
            ),
        },
    ),
    "cb": ChoiceTask(
        paper_name="CB",
        folder="CB",
        fields=("premise", "hypothesis"),
        labels=("entailment", "contradiction", "neutral"),
        forms={
            GPT3: _form(
                prompt=_cb_prompt,
                answers=_words("true", "false", "neither"),
                metrics=(*ACCURACY, class_f1("f1", _CLASSES)),
            ),
            HARNESS: _form(
                prompt=_template("{premise}\nQuestion: {hypothesis}. True, False, or Neither?\nAnswer:"),
                answers=_words("True", "False", "Neither"),
                metrics=(*ACC, class_f1("f1", _CLASSES, "sum")),
            ),
        },
    ),
    "copa": ChoiceTask(
        paper_name="COPA",
        folder="COPA",
        fields=("premise", "choice1", "choice2", "question"),
        labels=(0, 1),
        forms={
            GPT3: _form(
                prompt=partial(_copa_prompt, {"cause": "because", "effect": "so"}),
                answers=partial(_copa_answers, " "),
                metrics=ACCURACY,
                delimiter="\n",
            ),
            HARNESS: _form(
                prompt=partial(_copa_prompt, {"cause": "because", "effect": "therefore"}),
                answers=partial(_copa_answers, "  "),  # its choices have a space of their own after the delimiter's
                metrics=ACC,
            ),
        },
    ),
    "rte": ChoiceTask(
        paper_name="RTE",
        folder="RTE",
        fields=("premise", "hypothesis"),
        labels=("entailment", "not_entailment"),
        forms={
            GPT3: _form(
                prompt=_template("{premise}\nquestion: {hypothesis} True or False?\nanswer:"),
                answers=_words("True", "False"),
                metrics=ACCURACY,
            ),
            HARNESS: _form(
                prompt=_template("{premise}\nQuestion: {hypothesis} True or False?\nAnswer:"),
                answers=_words("True", "False"),
                metrics=ACC,
            ),
        },
    ),
    "wic": ChoiceTask(
        paper_name="WiC",
        folder="WiC",
        fields=("word", "sentence1", "sentence2", "start1", "end1"),
        labels=(False, True),
        forms={
            GPT3: _form(
                prompt=_template(
                    "{sentence1}\n{sentence2}\n"
                    "question: Is the word '{word}' used in the same way in the two sentences above?\nanswer:"
                ),
                answers=_words("no", "yes"),
                metrics=ACCURACY,
            ),
            HARNESS: _form(prompt=_wic_as_harness, answers=_words("no", "yes"), metrics=ACC),
        },
    ),
}


def make_choice(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the task of that name, on its validation file."""
    choice = CHOICES[name]
    form = form_of(name, choice.forms, protocol)
    data = require_data(name, data, *choice.all_files)
    file = data.require(name, *choice.all_files)
    training = data.beside(file, "train.jsonl")
    splits = Splits(
        Split(in_folder(file, choice.all_files[0]), form.read(file, choice)),
        Split(training.short, form.read(training, choice)) if training else None,
        harness_excludes=True,
    )
    return form.task(
        name,
        protocol,
        splits,
        paper_name=choice.paper_name,
        default_shots=SHOTS,
        chance=1 / len(choice.labels),
    )


TASKS = {name: partial(make_choice, name) for name in CHOICES}
