"""Winograd and Winogrande, read from their original layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.winograd import WINOGRAD_FORMS, WINOGRANDE_FORMS, in_place


@pytest.mark.parametrize(
    ("option", "pronoun", "begins", "expected"),
    [
        ("The kettle", "it", False, "the kettle"),
        ("The kettle", "it", True, "The kettle"),
        ("Joan", "she", False, "Joan"),
        ("The man", "his", False, "the man's"),
        ("Theodore", "he", False, "Theodore"),
    ],
)
def test_a_candidate_takes_the_pronouns_case_and_capital(option, pronoun, begins, expected) -> None:
    assert in_place(option, pronoun, begins) == expected


def test_the_collection_of_schemas_and_the_rendered_set_agree(shared_data: Path) -> None:
    archive = DataFolder(shared_data / "eval/format_samples/winograd_wsc__wsc273__0.0.0.zip")
    original = WINOGRAD_FORMS[GPT3].read(archive.require("winograd", "WSCollection.xml"))
    rendered = WINOGRAD_FORMS[GPT3].read(DataFile("winograd_wsc.jsonl", DataFolder(shared_data / "eval" / "rendered")))
    assert len(original) == 5
    for one, other in zip(original[:4], rendered, strict=False):
        assert (one.contexts, one.completions, one.gold) == (other.contexts, other.completions, other.gold)


def test_what_follows_the_blank_keeps_its_closing_punctuation(tmp_path: Path) -> None:
    row = {"qID": "q", "sentence": "Ann asked Bea about _'s car.", "option1": "Ann", "option2": "Bea", "answer": "2"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row))
    (paper,) = WINOGRANDE_FORMS[GPT3].read(DataFile("dev.jsonl", DataFolder(tmp_path)))
    assert paper.contexts == ("Ann asked Bea about Ann", "Ann asked Bea about Bea")
    assert paper.demonstration == "Ann asked Bea about Bea's car."
    (harness,) = WINOGRANDE_FORMS[HARNESS].read(DataFile("dev.jsonl", DataFolder(tmp_path)))
    assert harness.completions == (" 's car.", " 's car.")
