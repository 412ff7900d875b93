"""ANLI: does a text say so, deny it, or neither? In: the folder of its rounds. Out: three tasks of choosing.

Source: Nie et al. 2019; Brown et al. 2020, section 3.8.
"""

from __future__ import annotations

from functools import partial

from fewshot.evaluate.data.files import Data, DataFile, Row, require_data
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Splits, find_split, require_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC, ACCURACY, Form, form_of

ANSWERS = (" True", " Neither", " False")
LABELS = {"e": 0, "n": 1, "c": 2}  # entailment, neutral, contradiction


def read_anli(file: DataFile, number: int, *, prompt: str) -> list[Example]:
    """Return the examples of lines of {"uid", "context", "hypothesis", "label"} of round `number`."""

    def example(_: int, row: Row) -> Example:
        question = f"{row['context']}\nQuestion: {row['hypothesis']} True, False, or Neither?"
        return Example(str(row["uid"]), prompt.format(number=number, question=question), ANSWERS, LABELS[row["label"]])

    return file.parse_rows(example, uid=ID, context=str, hypothesis=str, label=OneOf(tuple(LABELS)))


FORMS = {
    GPT3: Form(read=partial(read_anli, prompt="anli {number}: anli {number}: {question}"), metrics=ACCURACY),
    HARNESS: Form(read=partial(read_anli, prompt="{question}\nAnswer:"), metrics=ACC),
}


def make_anli(number: int, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return ANLI on the test set of that round."""
    name, folder = f"anli_r{number}", f"R{number}"
    data = require_data(name, data, f"{folder}/test.jsonl")
    form = form_of(name, FORMS, protocol)
    read = partial(form.read, number=number)
    training, dev = (find_split(data, read, f"{folder}/{part}.jsonl") for part in ("train", "dev"))
    splits = Splits(require_split(name, data, read, f"{folder}/test.jsonl"), training, dev)
    return form.task(name, protocol, splits, paper_name=f"ANLI {folder}", default_shots=50, chance=1 / 3)


TASKS = {f"anli_r{number}": partial(make_anli, number) for number in (1, 2, 3)}
