"""DROP: questions about a passage that ask for counting, sorting, adding. In: its files. Out: one free-form task.

Source: Dua et al. 2019; Brown et al. 2020, section 3.6.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fewshot.evaluate.data.files import Data, DataFile, Row, in_layout, require_data
from fewshot.evaluate.data.passages import Separate, passage_splits
from fewshot.evaluate.data.schema import ID, Each, Many, Maybe
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.question_answering import drop
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

FILES = ("drop_dataset_dev.json",)
TRAINING_FILES = ("drop_dataset_train.json",)
DATE = ("day", "month", "year")
ANSWER = {"number": (str, int), "spans": Many(str), "date": Maybe(dict.fromkeys(DATE, Maybe(str)))}
QUESTION = {"question": str, "query_id": ID, "answer": ANSWER, "validated_answers": Maybe(Many(ANSWER))}
DROP = Each({"passage": str, "qa_pairs": Many(QUESTION)})
HARNESS_ANSWER = "number,date,spans,worker_id,hit_id"  # the names of an answer's fields, which it joins for its values


def read_drop(file: DataFile, *, make_example: Callable[[str, Row], Example]) -> list[Separate]:
    """Return the passages of a file, each question with its accepted answers; an answer is a tuple of spans."""
    with in_layout(file, "DROP's drop_dataset_dev.json"):
        return [
            Separate(tuple(make_example(passage["passage"], row) for row in passage["qa_pairs"]))
            for passage in file.json(DROP).values()
        ]


def _accepted(row: Row) -> tuple[tuple[str, ...], ...]:
    given = [row["answer"], *(row.get("validated_answers") or [])]
    return tuple(dict.fromkeys(spans_of(answer) for answer in given))


def _example_as_harness(passage: str, row: Row) -> Example:
    text, accepted = f"{passage} {row['question']}", _accepted(row)
    answers = tuple(",".join(spans) or " " for spans in accepted)
    return Example(str(row["query_id"]), text, answers, as_demonstration=text + HARNESS_ANSWER, references=accepted)


def _example(passage: str, row: Row) -> Example:
    accepted = _accepted(row)
    text = f"Passage: {passage.strip()}\nQuestion: {row['question'].strip()}\nAnswer:"
    return Example(str(row["query_id"]), text, tuple(" " + ", ".join(spans) for spans in accepted), references=accepted)


def spans_of(answer: Row) -> tuple[str, ...]:
    """Return the answer as spans: a number, spans of the passage, or a date in the order day, month, year.

    Source: DROP's official script.
    """
    if answer["number"]:
        return (str(answer["number"]),)
    if answer["spans"]:
        return tuple(answer["spans"])
    date = answer.get("date") or {}
    return (" ".join(date.get(part) or "" for part in DATE).strip(),)


FORMS = {
    GPT3: Form(
        read=partial(read_drop, make_example=_example),
        kind="complete",
        metrics=(drop("f1", f1=True, listed=True), drop("em", f1=False, listed=True)),
        max_answer_tokens=48,
        notes=("an answer of several spans is written and judged with commas between the spans",),
    ),
    HARNESS: Form(
        read=partial(read_drop, make_example=_example_as_harness),
        kind="complete",
        metrics=(drop("em", f1=False), drop("f1", f1=True)),
        stop=(".",),
        max_answer_tokens=256,
        notes=(
            f"as in lm-eval 0.4.13 a demonstration shows not the answer but the names of its fields, {HARNESS_ANSWER}",
        ),
    ),
}


def make_drop(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return DROP on its development set."""
    form, data = form_of("drop", FORMS, protocol), require_data("drop", data, *FILES)
    splits = passage_splits("drop", data, form.read, files=FILES, training=TRAINING_FILES, protocol=protocol)
    return form.task("drop", protocol, splits, paper_name="DROP", default_shots=20)


TASKS = {"drop": make_drop}
