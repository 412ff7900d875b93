"""HellaSwag: the likeliest ending of a scene. In: the folder with its files. Out: one task of choosing.

Source: Zellers et al. 2019; Brown et al. 2020, section 3.1.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, Found, needed
from fewshot.evaluate.data.schema import ID
from fewshot.evaluate.data.splits import Splits, find_split, need_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task

VALIDATION_FILES = ("hellaswag_val.jsonl", "hellaswag_val_full.txt")
TRAINING_FILE = "hellaswag_train.jsonl"


def read_hellaswag(file: Found, protocol: EvalProtocol) -> list[Example]:
    """Return the scenes of a file: JSON lines in the original layout, or blocks of a scene, the right number and 4
    endings.
    """
    if file.kind == ".jsonl":
        return file.each(
            lambda _, row: _example(row, protocol),
            ind=ID,
            activity_label=str,
            ctx_a=str,
            ctx_b=str,
            endings=[str],
            label=(int, str),
        )
    lines = file.text().rstrip("\n").split("\n")
    if len(lines) % 6:
        raise BadFile(f"{file} has {len(lines):,} lines, which is no multiple of 6: a scene, a number and four endings")
    blocks = [lines[at : at + 6] for at in range(0, len(lines), 6)]
    return [
        _finished(number, scene, endings, int(gold), protocol) for number, (scene, gold, *endings) in enumerate(blocks)
    ]


def _example(row: dict[str, Any], protocol: EvalProtocol) -> Example:
    """Return `{activity}: {scene}` and the ending; the harness capitalises where the scene's second part begins."""
    second = row["ctx_b"].capitalize() if protocol is HARNESS else row["ctx_b"]
    scene = f"{row['activity_label']}: {row['ctx_a']} {second}"
    return _finished(row["ind"], scene, row["endings"], int(row["label"]), protocol)


def _finished(number: int, scene: str, endings: Sequence[str], gold: int, protocol: EvalProtocol) -> Example:
    """Return the harness takes WikiHow's marks out of the text, the paper does not speak of it."""
    tidy = _cleaned if protocol is HARNESS else str.strip
    return Example(str(number), tidy(scene), tuple(f" {tidy(ending)}" for ending in endings), gold=gold)


def _cleaned(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def make_hellaswag(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return HellaSwag's validation set; without the training file one scene in five is kept for demonstrations."""
    data = needed("hellaswag", data, *VALIDATION_FILES)
    read = partial(read_hellaswag, protocol=protocol)
    splits = Splits(
        need_split("hellaswag", data, read, *VALIDATION_FILES),
        find_split(data, read, TRAINING_FILE),
        harness_excludes=True,
    )
    return Task(
        name="hellaswag",
        paper_name="HellaSwag",
        protocol=protocol,
        kind="choose",
        metrics=(accuracy("sum", name="acc"), accuracy("character", name="acc_norm"))
        if protocol is HARNESS
        else (accuracy("token"),),
        episodes=splits.episodes("hellaswag", protocol),
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=20,
        chance=0.25,
    )


TASKS = {"hellaswag": make_hellaswag}
