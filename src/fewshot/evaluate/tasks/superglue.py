"""SuperGLUE's sets of choosing a word or one of two sentences. In: their folders of JSON lines. Out: tasks.

BoolQ, CB, COPA, RTE and WiC, evaluated on the validation files. Source: Wang et al. 2019; Brown et al. 2020,
section 3.7 and appendix G; the harness's forms lm_eval 0.4.13, tasks/super_glue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fewshot.evaluate.data.files import Data, Found, Row, needed
from fewshot.evaluate.data.passages import in_folder
from fewshot.evaluate.data.schema import ID, Maybe, OneOf, check_kind
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import Metric, accuracy
from fewshot.evaluate.metrics.question_answering import class_f1
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

SHOTS = 32  # the paper's K for all of SuperGLUE


@dataclass(frozen=True, kw_only=True)
class Form:
    """How one set's rows are asked: a prompt, and an answer for each of the set's labels."""

    prompt: Callable[[Row], str]
    answers: Callable[[Row], tuple[str, ...]]
    metrics: tuple[Metric, ...]
    delimiter: str = "\n\n"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A set of choosing: its files, the labels of its rows in the order of the answers, and both forms."""

    paper_name: str
    folder: str
    fields: tuple[str, ...]
    labels: tuple[Any, ...]
    gpt3: Form
    harness: Form
    files: tuple[str, ...] = ()  # other names that its validation file may have

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds of its rows' values, labels aside."""
        return {
            **{field: int if field in ("start1", "end1") else str for field in self.fields},
            "idx": Maybe(ID),
        }

    @property
    def all_files(self) -> tuple[str, ...]:
        """The names of its validation file."""
        return (f"{self.folder}/val.jsonl", *self.files)


def _template(text: str) -> Callable[[Row], str]:
    return text.format_map


def _words(*words: str) -> Callable[[Row], tuple[str, ...]]:
    return lambda row: tuple(f" {word}" for word in words)


def sentence(text: str) -> str:
    """Return the text with a full stop, where it ends without a mark."""
    return text if text.endswith((".", "?", "!", '"', "'")) else f"{text}."


def _cb_prompt(row: Row) -> str:
    """Return hypotheses stand in the file without full stops, which figure G.30 shows."""
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


_ACCURACY = (accuracy("token"),)
_ACC = (accuracy("sum", name="acc"),)
_CLASSES = (0, 1, 2)

CHOICES = {
    "boolq": Choice(
        paper_name="BoolQ",
        folder="BoolQ",
        files=("boolq/dev.jsonl", "dev.jsonl"),
        fields=("passage", "question"),
        labels=(False, True),
        gpt3=Form(
            prompt=_template("{passage}\nquestion: {question}?\nanswer:"),
            answers=_words("no", "yes"),
            metrics=_ACCURACY,
        ),
        harness=Form(
            prompt=_template("{passage}\nQuestion: {question}?\nAnswer:"), answers=_words("no", "yes"), metrics=_ACC
        ),
    ),
    "cb": Choice(
        paper_name="CB",
        folder="CB",
        fields=("premise", "hypothesis"),
        labels=("entailment", "contradiction", "neutral"),
        gpt3=Form(
            prompt=_cb_prompt,
            answers=_words("true", "false", "neither"),
            metrics=(*_ACCURACY, class_f1("f1", _CLASSES)),
        ),
        harness=Form(
            prompt=_template("{premise}\nQuestion: {hypothesis}. True, False, or Neither?\nAnswer:"),
            answers=_words("True", "False", "Neither"),
            metrics=(*_ACC, class_f1("f1", _CLASSES, "sum")),
        ),
    ),
    "copa": Choice(
        paper_name="COPA",
        folder="COPA",
        fields=("premise", "choice1", "choice2", "question"),
        labels=(0, 1),
        gpt3=Form(
            prompt=partial(_copa_prompt, {"cause": "because", "effect": "so"}),
            answers=partial(_copa_answers, " "),
            metrics=_ACCURACY,
            delimiter="\n",
        ),
        harness=Form(
            prompt=partial(_copa_prompt, {"cause": "because", "effect": "therefore"}),
            answers=partial(_copa_answers, "  "),  # its choices have a space of their own after the delimiter's
            metrics=_ACC,
        ),
    ),
    "rte": Choice(
        paper_name="RTE",
        folder="RTE",
        fields=("premise", "hypothesis"),
        labels=("entailment", "not_entailment"),
        gpt3=Form(
            prompt=_template("{premise}\nquestion: {hypothesis} True or False?\nanswer:"),
            answers=_words("True", "False"),
            metrics=_ACCURACY,
        ),
        harness=Form(
            prompt=_template("{premise}\nQuestion: {hypothesis} True or False?\nAnswer:"),
            answers=_words("True", "False"),
            metrics=_ACC,
        ),
    ),
    "wic": Choice(
        paper_name="WiC",
        folder="WiC",
        fields=("word", "sentence1", "sentence2", "start1", "end1"),
        labels=(False, True),
        gpt3=Form(
            prompt=_template(
                "{sentence1}\n{sentence2}\n"
                "question: Is the word '{word}' used in the same way in the two sentences above?\nanswer:"
            ),
            answers=_words("no", "yes"),
            metrics=_ACCURACY,
        ),
        harness=Form(prompt=_wic_as_harness, answers=_words("no", "yes"), metrics=_ACC),
    ),
}


def read_choices(file: Found, choice: Choice, form: Form) -> list[Example]:
    """Return the rows of a set of choosing, in SuperGLUE's layout or (BoolQ) in the set's own."""

    def example(number: int, row: Row) -> Example:
        row = _as_superglue(row)
        check_kind(row, {**choice.kinds, "label": OneOf(choice.labels)})
        answers = form.answers(row)
        gold = answers.index(answers[choice.labels.index(row["label"])])  # of equal ones the first, as it is chosen
        name = number if row.get("idx") is None else row["idx"]
        return Example(str(name), form.prompt(row), answers, gold)

    return file.each(example, **choice.kinds)


def _as_superglue(row: Row) -> Row:
    """Return BoolQ's own files name the label otherwise, and keep the title apart that SuperGLUE puts before the
    passage.
    """
    if "label" in row or "title" not in row:
        return row
    return {"passage": f"{row['title']} -- {row['passage']}", "question": row["question"], "label": row["answer"]}


def make_choice(name: str, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the set of that name, on its validation file."""
    choice = CHOICES[name]
    form = choice.harness if protocol is HARNESS else choice.gpt3
    data = needed(name, data, *choice.all_files)
    file = data.need(name, *choice.all_files)
    training = data.beside(file, "train.jsonl")
    splits = Splits(
        Split(in_folder(file, choice.all_files[0]), read_choices(file, choice, form)),
        Split(training.short, read_choices(training, choice, form)) if training else None,
        harness_excludes=True,
    )
    return Task(
        name=name,
        paper_name=choice.paper_name,
        protocol=protocol,
        kind="choose",
        metrics=form.metrics,
        episodes=splits.episodes(name, protocol),
        source=splits.source(protocol),
        delimiter=form.delimiter,
        default_shots=SHOTS,
        chance=1 / len(choice.labels),
    )


TASKS = {name: partial(make_choice, name) for name in CHOICES}
