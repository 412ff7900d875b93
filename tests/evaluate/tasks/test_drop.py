"""DROP, read from its original layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.drop import spans_of
from fewshot.evaluate.tasks.table import make_task


def questions(task: Task) -> dict[str, Example]:
    """All evaluated examples by their ids, which must be unique."""
    examples = [episode.example for episode in task.episodes(99_999, 0, 0)]
    by_id = {example.id: example for example in examples}
    assert len(by_id) == len(examples)
    return by_id


def answer(
    number: str = "", spans: tuple[str, ...] = (), day: str = "", month: str = "", year: str = ""
) -> dict[str, Any]:
    return {"number": number, "spans": list(spans), "date": {"day": day, "month": month, "year": year}}


def test_drops_answers_are_numbers_spans_or_dates() -> None:
    assert spans_of(answer(number="3", spans=("x",))) == ("3",)
    assert spans_of(answer(spans=("Jones", "Smith"))) == ("Jones", "Smith")
    assert spans_of(answer(day="7", month="May", year="1945")) == ("7 May 1945",)
    assert spans_of(answer(month="May")) == ("May",)


def test_drop_shows_several_spans_with_commas_and_takes_them_back(tmp_path: Path) -> None:
    row = {"question": " Who scored? ", "query_id": "q", "answer": answer(spans=("Jones", "Smith"))}
    passage = {"p": {"passage": " A game. ", "qa_pairs": [{**row, "validated_answers": [answer(spans=("Jones",))]}]}}
    for split in ("dev", "train"):
        (tmp_path / f"drop_dataset_{split}.json").write_text(json.dumps(passage), encoding="utf-8")
    task = make_task("drop", data=DataFolder(tmp_path))
    (example,) = questions(task).values()
    assert example.context == "Passage: A game.\nQuestion: Who scored?\nAnswer:"
    assert example.completions == (" Jones, Smith", " Jones")
    assert task.metrics[1].of([Answer(example=example, text=" Smith, Jones")]) == 1.0
    (harness,) = questions(make_task("drop", data=DataFolder(tmp_path), protocol=HARNESS)).values()
    assert (harness.context, harness.completions[0]) == (" A game.   Who scored? ", "Jones,Smith")
