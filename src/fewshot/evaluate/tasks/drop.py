"""DROP: questions about a passage that ask for counting, sorting, adding. In: its files. Out: one free-form task.

Source: Dua et al. 2019; Brown et al. 2020, section 3.6.
"""

from __future__ import annotations

from typing import Any

from fewshot.evaluate.data.files import Data, Found, laid_out, needed
from fewshot.evaluate.data.passages import Separate, passage_splits
from fewshot.evaluate.data.schema import ID, Each, Many, Maybe
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.question_answering import drop
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

FILES = ("drop_dataset_dev.json",)
TRAINING_FILES = ("drop_dataset_train.json",)
DATE = ("day", "month", "year")
ANSWER = {"number": (str, int), "spans": Many(str), "date": Maybe(dict.fromkeys(DATE, Maybe(str)))}
QUESTION = {"question": str, "query_id": ID, "answer": ANSWER, "validated_answers": Maybe(Many(ANSWER))}
DROP = Each({"passage": str, "qa_pairs": Many(QUESTION)})
HARNESS_SHOWN = "number,date,spans,worker_id,hit_id"  # the names of an answer's fields, which it joins for its values


def read_drop(file: Found, protocol: EvalProtocol) -> list[Separate]:
    """Return the passages of a file, each question with its accepted answers; an answer is a tuple of spans."""
    with laid_out(file, "DROP's drop_dataset_dev.json"):
        return [
            Separate(tuple(_example(passage["passage"], row, protocol) for row in passage["qa_pairs"]))
            for passage in file.json(DROP).values()
        ]


def _example(passage: str, row: dict[str, Any], protocol: EvalProtocol) -> Example:
    given = [row["answer"], *(row.get("validated_answers") or [])]
    accepted = tuple(dict.fromkeys(spans_of(answer) for answer in given))
    if protocol is HARNESS:
        text = f"{passage} {row['question']}"
        answers = tuple(",".join(spans) or " " for spans in accepted)
        return Example(str(row["query_id"]), text, answers, shown=text + HARNESS_SHOWN, references=accepted)
    text = f"Passage: {passage.strip()}\nQuestion: {row['question'].strip()}\nAnswer:"
    return Example(str(row["query_id"]), text, tuple(" " + ", ".join(spans) for spans in accepted), references=accepted)


def spans_of(answer: dict[str, Any]) -> tuple[str, ...]:
    """Return the answer as spans: a number, spans of the passage, or a date in the order day, month, year.

    Source: DROP's official script.
    """
    if answer["number"]:
        return (str(answer["number"]),)
    if answer["spans"]:
        return tuple(answer["spans"])
    date = answer.get("date") or {}
    return (" ".join(date.get(part) or "" for part in DATE).strip(),)


def make_drop(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return DROP's development set."""
    splits = passage_splits(
        "drop",
        needed("drop", data, *FILES),
        lambda file: read_drop(file, protocol),
        files=FILES,
        training=TRAINING_FILES,
        protocol=protocol,
    )
    harness = protocol is HARNESS
    em, f1 = drop("em", f1=False, listed=not harness), drop("f1", f1=True, listed=not harness)
    return Task(
        name="drop",
        paper_name="DROP",
        protocol=protocol,
        kind="complete",
        metrics=(em, f1) if harness else (f1, em),
        episodes=splits.episodes("drop", protocol),
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=20,
        stop=(".",) if harness else ("\n",),
        max_answer_tokens=256 if harness else 48,
        notes=(
            f"as in lm-eval 0.4.13 a demonstration shows not the answer but the names of its fields, {HARNESS_SHOWN}",
        )
        if harness
        else ("an answer of several spans is shown, and read, with commas between them",),
    )


TASKS = {"drop": make_drop}
