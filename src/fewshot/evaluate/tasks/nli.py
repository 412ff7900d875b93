"""ANLI: does a text say so, deny it, or neither? In: the folder of its rounds. Out: three tasks of choosing.

Source: Nie et al. 2019; Brown et al. 2020, section 3.8.
"""

from __future__ import annotations

from functools import partial

from fewshot.evaluate.data.files import Data, Found, Row, needed
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Splits, find_split, need_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

ANSWERS = (" True", " Neither", " False")
LABELS = {"e": 0, "n": 1, "c": 2}  # entailment, neutral, contradiction


def read_anli(file: Found, number: int, protocol: EvalProtocol) -> list[Example]:
    """Return lines of {"uid", "context", "hypothesis", "label"} of round `number`."""

    def example(_: int, row: Row) -> Example:
        question = f"{row['context']}\nQuestion: {row['hypothesis']} True, False, or Neither?"
        text = f"{question}\nAnswer:" if protocol is HARNESS else f"anli {number}: anli {number}: {question}"
        return Example(str(row["uid"]), text, ANSWERS, LABELS[row["label"]])

    return file.each(example, uid=ID, context=str, hypothesis=str, label=OneOf(tuple(LABELS)))


def make_anli(number: int, *, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return the test set of ANLI's round of that number."""
    name, folder = f"anli_r{number}", f"R{number}"
    data = needed(name, data, f"{folder}/test.jsonl")
    read = partial(read_anli, number=number, protocol=protocol)
    training, dev = (find_split(data, read, f"{folder}/{part}.jsonl") for part in ("train", "dev"))
    splits = Splits(need_split(name, data, read, f"{folder}/test.jsonl"), training, dev)
    return Task(
        name=name,
        paper_name=f"ANLI {folder}",
        protocol=protocol,
        kind="choose",
        metrics=(accuracy("sum", name="acc"),) if protocol is HARNESS else (accuracy("token"),),
        episodes=splits.episodes(name, protocol),
        dev=splits.dev_episodes(name) if protocol is GPT3 else None,
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=50,
        chance=1 / 3,
    )


TASKS = {f"anli_r{number}": partial(make_anli, number) for number in (1, 2, 3)}
