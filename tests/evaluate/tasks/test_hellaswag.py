"""HellaSwag, read from both of its layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.hellaswag import FORMS

ROW = {
    "ind": 7,
    "activity_label": "Baking",
    "ctx_a": "A man stirs.",
    "ctx_b": "the bowl [step]",
    "endings": ["is [title] full.", "sings.", "ends.", "is a dog."],
    "label": "0",
}


def test_the_harness_takes_marks_out_and_begins_the_second_part_with_a_capital(tmp_path: Path) -> None:
    (tmp_path / "hellaswag_val.jsonl").write_text(json.dumps(ROW))
    file = DataFile("hellaswag_val.jsonl", DataFolder(tmp_path))
    (paper,), (harness,) = FORMS[GPT3].read(file), FORMS[HARNESS].read(file)
    assert paper.demonstration == "Baking: A man stirs. the bowl [step] is [title] full."
    assert harness.context == "Baking: A man stirs. The bowl "
    assert harness.completions[0] == " is. full."
    assert (paper.id, paper.gold, len(paper.completions)) == ("7", 0, 4)


def test_scenes_are_blocks_of_six_lines(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("A: scene\n2\na\nb\nc\nd\n")
    (example,) = FORMS[GPT3].read(DataFile("val.txt", DataFolder(tmp_path)))
    assert (example.context, example.completions, example.gold) == ("A: scene", (" a", " b", " c", " d"), 2)
    (tmp_path / "short.txt").write_text("A: scene\n2\na\n")
    with pytest.raises(BadFile, match="has 3 lines, which is no multiple of 6"):
        FORMS[GPT3].read(DataFile("short.txt", DataFolder(tmp_path)))
