"""HellaSwag: the likeliest ending of a scene. In: the folder with its files. Out: one task of choosing.

Source: Zellers et al. 2019; Brown et al. 2020, section 3.1.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, DataFile, Row, require_data
from fewshot.evaluate.data.schema import ID
from fewshot.evaluate.data.splits import Splits, find_split, require_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC_AND_NORM, ACCURACY, Form, form_of

VALIDATION_FILES = ("hellaswag_val.jsonl", "hellaswag_val_full.txt")
TRAINING_FILE = "hellaswag_train.jsonl"


def read_hellaswag(file: DataFile, *, begin_second: Callable[[str], str], clean: Callable[[str], str]) -> list[Example]:
    """Return the scenes of a file: JSON lines in the original layout, or blocks of a scene, a number, four endings.

    `begin_second` writes the second part of a scene, `clean` every scene and ending.
    """
    if file.suffix == ".jsonl":
        return file.parse_rows(
            lambda _, row: _example(row, begin_second, clean),
            ind=ID,
            activity_label=str,
            ctx_a=str,
            ctx_b=str,
            endings=[str],
            label=(int, str),
        )
    lines = file.text().rstrip("\n").split("\n")
    if len(lines) % 6:
        raise BadFile(
            f"{file} has {len(lines):,} lines, which is no multiple of 6 (a scene, a number and four endings)"
        )
    blocks = [lines[at : at + 6] for at in range(0, len(lines), 6)]
    return [_scene(number, scene, endings, int(gold), clean) for number, (scene, gold, *endings) in enumerate(blocks)]


def _example(row: Row, begin_second: Callable[[str], str], clean: Callable[[str], str]) -> Example:
    scene = f"{row['activity_label']}: {row['ctx_a']} {begin_second(row['ctx_b'])}"
    return _scene(row["ind"], scene, row["endings"], int(row["label"]), clean)


def _scene(number: int, scene: str, endings: Sequence[str], gold: int, clean: Callable[[str], str]) -> Example:
    return Example(str(number), clean(scene), tuple(f" {clean(ending)}" for ending in endings), gold=gold)


def _without_marks(text: str) -> str:
    """Return the text without WikiHow's marks, which the harness takes out; the paper does not speak of them."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


FORMS = {
    GPT3: Form(read=partial(read_hellaswag, begin_second=str, clean=str.strip), metrics=ACCURACY),
    HARNESS: Form(
        read=partial(read_hellaswag, begin_second=str.capitalize, clean=_without_marks), metrics=ACC_AND_NORM
    ),
}


def make_hellaswag(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return HellaSwag on its validation set; without a training file a fifth of it is for demonstrations."""
    data = require_data("hellaswag", data, *VALIDATION_FILES)
    form = form_of("hellaswag", FORMS, protocol)
    splits = Splits(
        require_split("hellaswag", data, form.read, *VALIDATION_FILES),
        find_split(data, form.read, TRAINING_FILE),
        harness_excludes=True,
    )
    return form.task("hellaswag", protocol, splits, paper_name="HellaSwag", default_shots=20, chance=0.25)


TASKS = {"hellaswag": make_hellaswag}
