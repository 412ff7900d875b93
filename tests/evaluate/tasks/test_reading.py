"""QuAC, SQuAD 2.0 and CoQA, read from their original layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"


ARCHIVES = {
    "quac": "quac__plain_text__1.1.0.zip",
    "squad_v2": "squad_v2__squad_v2__2.0.0.zip",
    "coqa": "coqa__1.0.0.zip",
    "drop": "drop__0.1.0.zip",
    "race_h": "race__all__0.1.0.zip",
    "race_m": "race__all__0.1.0.zip",
}


def sample(task: str, shared_data: Path) -> Task:
    return make_task(task, data=DataFolder(shared_data / "eval/format_samples" / ARCHIVES[task]))


def made_up(task: str, protocol: EvalProtocol = GPT3) -> Task:
    return make_task(task, data=DataFolder(SAMPLES / task.removesuffix("_h")), protocol=protocol)


def questions(task: Task) -> dict[str, Example]:
    """All evaluated examples by their ids, which must be unique."""
    examples = [episode.example for episode in task.episodes(99_999, 0, 0)]
    by_id = {example.id: example for example in examples}
    assert len(by_id) == len(examples)
    return by_id


@pytest.mark.parametrize(
    ("task", "n"), [("quac", 41), ("squad_v2", 2), ("coqa", 12), ("drop", 2), ("race_h", 8), ("race_m", 14)]
)
def test_every_question_of_a_sample_is_evaluated(task: str, n: int, shared_data: Path) -> None:
    assert len(questions(sample(task, shared_data))) == n


def test_a_turn_stands_after_those_before_it_with_their_answers() -> None:
    turns = questions(made_up("quac"))
    first, second = turns["Agnes_Brown_q#0"], turns["Agnes_Brown_q#1"]
    assert first.context.startswith("TITLE: Agnes Brown - 1878-1918: At the lamp\nPARAGRAPH: Agnes Brown lit")
    assert first.context.endswith("every night.\n\nQ: When did she light it?\n\nA:")  # without the data's mark
    assert second.context == first.context + first.completions[0] + "\n\nQ: Did she marry?\n\nA:"
    assert first.completions[0] == " in 1878"  # the teacher's own
    assert len(first.references) == 3  # with repetitions, as people are left out one by one


def test_coqa_has_four_peoples_answers_and_the_harness_asks_the_last_turn_alone() -> None:
    turns = questions(made_up("coqa"))
    assert turns["madeup1:1"].references == ("Kit", "Kit the cat", "Kit", "a cat")
    last = questions(made_up("coqa", HARNESS))
    assert list(last) == ["madeup1:3", "madeup2:2"]
    assert last["madeup1:3"].context.endswith("A: no\n\nQ: What did the mouse do?\n\nA:")
    assert last["madeup1:3"].references == ("sang", "It sang.", "it sang so well")  # of "sang" and "Sang" the first


def test_half_of_squads_development_set_is_read_and_no_paragraph_is_both_asked_and_shown(shared_data: Path) -> None:
    data = DataFolder(shared_data / "eval/squad2")
    whole = questions(make_task("squad_v2", data=data, protocol=HARNESS))
    assert len(whole) == 6078  # the file holds 16 of 35 articles; the paper's set has 11,873 questions
    file = data.require("squad_v2", "dev-v2.0.json")
    assert sum(not one.references for one in whole.values()) == file.text().count('"is_impossible":true') == 3168

    task = make_task("squad_v2", data=data)
    episodes = task.episodes(99_999, 3, 0)
    assert 0.75 < len(episodes) / len(whole) < 0.85
    heads = {one.example.context.split("\n\nQ: ")[0] for one in episodes}
    assert not heads & {shown.context.split("\n\nQ: ")[0] for one in episodes for shown in one.demonstrations}


def test_squads_unanswerable_questions_are_answered_so_and_scored_so(shared_data: Path) -> None:
    task = make_task("squad_v2", data=DataFolder(shared_data / "eval/squad2"))
    example = next(one for one in questions(task).values() if not one.references)
    assert example.completions == (" unanswerable",)
    assert [metric.of([Answer(example=example, text=" unanswerable")]) for metric in task.metrics] == [1.0, 1.0]
    harness = make_task("squad_v2", data=DataFolder(shared_data / "eval/squad2"), protocol=HARNESS)
    assert harness.metrics[0].of([Answer(example=example, text=" unanswerable")]) == 0.0


@pytest.mark.parametrize("task", ["quac", "squad_v2", "coqa", "drop", "race_h"])
def test_a_file_in_another_layout_is_named(task: str, tmp_path: Path) -> None:
    names = {
        "quac": "val_v0.2.json",
        "squad_v2": "dev-v2.0.json",
        "coqa": "coqa-dev-v1.0.json",
        "drop": "drop_dataset_dev.json",
        "race_h": "RACE/test/high/1.txt",
    }
    file = tmp_path / names[task]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"data": [{"title": "x", "story": "y"}]}', encoding="utf-8")
    with pytest.raises(BadFile, match=f"{file.name} is not laid out as"):
        make_task(task, data=DataFolder(tmp_path))
