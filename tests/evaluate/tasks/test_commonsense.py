"""PIQA, ARC and OpenBookQA, read from their original layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.tasks.commonsense import make_piqa, read_pupils
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge", "openbookqa"])
def test_arc_and_openbookqa_choose_above_the_bare_answer_context(name: str) -> None:
    task = make_task(name, data=DataFolder(SAMPLES / name.partition("_")[0]))
    assert task.answer_context == "Answer:"
    example = task.episodes(1, 0, 0)[0].example
    unlikely_anyway = tuple(-9.0 if index == example.gold else -1.0 for index in range(4))
    answer = Answer(example=example, logprobs=(-2.0,) * 4, n_tokens=(1,) * 4, unconditional=unlikely_anyway)
    assert task.metrics[0].of([answer]) == 1.0


def test_piqa_labels_are_those_of_the_same_split(tmp_path: Path) -> None:
    folder = tmp_path / "piqa"
    folder.mkdir()
    for split, n, label in (("train", 3, "1"), ("valid", 2, "0")):
        rows = [json.dumps({"goal": f"{split} {i}", "sol1": "a ", "sol2": "b"}) for i in range(n)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
        (folder / f"{split}-labels.lst").write_text(f"{label}\n" * n)
    task = make_piqa(data=DataFolder(folder))
    for episode in task.episodes(9, 3, 0):
        assert episode.example.gold == 0
        assert {one.gold for one in episode.demonstrations} == {1}
    (folder / "valid-labels.lst").write_text("0\n")
    with pytest.raises(BadFile, match="must hold 2 labels"):
        make_piqa(data=DataFolder(folder))


def test_a_question_may_have_numbers_for_letters_and_three_choices(tmp_path: Path) -> None:
    choices = [{"text": text, "label": label} for text, label in (("x", "1"), ("y", "2"), ("z", "3"))]
    row = {"id": "q", "question": {"stem": "What?", "choices": choices}, "answerKey": "2"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (example,) = read_pupils(DataFile("a.jsonl", DataFolder(tmp_path)), question=True)
    assert example.demonstration == "Question: What?\nAnswer: y"
    (tmp_path / "a.jsonl").write_text(json.dumps({**row, "answerKey": "4"}))
    with pytest.raises(BadFile, match=r"a\.jsonl line 1: answerKey is '4', q has the choices 1, 2, 3"):
        read_pupils(DataFile("a.jsonl", DataFolder(tmp_path)), question=True)
