"""MultiRC and ReCoRD, read from their original layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from superglue_files import MADE_UP, full, sample

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.tasks.table import make_task


def test_multircs_answers_of_a_question_are_one_group_with_both_judgements(shared_data: Path) -> None:
    task = full("multirc", shared_data)
    examples = [one.example for one in task.episodes(99_999, 0, 0)]
    for one in examples:
        true, false = one.completions
        assert true.removeprefix("- [True] ") == false.removeprefix("- [False] ") != true
        assert one.id.startswith(f"{one.group}:")
    file = DataFolder(shared_data / "eval/superglue").require("multirc", "MultiRC/val.jsonl")
    assert sum(one.gold == 0 for one in examples) == file.text().count('"label": 1') == 2075


def test_a_demonstration_of_multirc_is_a_question_with_all_its_answers_judged() -> None:
    shown = make_task("multirc", data=MADE_UP).episodes(1, 3, 0)[0].demonstrations
    assert {one.id: one.demonstration for one in shown}["4"] == (
        "Anna whistles and Ben sings.\n\nWho makes music?\n- [True] Anna\n- [True] Ben\n- [False] Dan\n"
    )


def test_multircs_guess_is_right_in_as_many_questions_as_coins_would_be(shared_data: Path) -> None:
    task = full("multirc", shared_data)
    n_answers: dict[str, int] = {}
    for one in task.episodes(99_999, 0, 0):
        n_answers[one.example.group] = n_answers.get(one.example.group, 0) + 1
    assert len(n_answers) == 953
    assert task.chance == pytest.approx(sum(2.0**-n for n in n_answers.values()) / 953)


def test_multircs_harness_form_takes_the_labels_as_the_harness_does() -> None:
    first = make_task("multirc", data=MADE_UP, protocol=HARNESS).episodes(1, 0, 0)[0].example
    answer = MADE_UP.require("multirc", "MultiRC/val.jsonl").rows("passage")[0]["passage"]["questions"][0]["answers"][0]
    assert answer["label"] == 1
    assert first.completions[1] == f" {answer['text']}\nIs the answer correct? no"
    assert first.gold == 1  # lm-eval 0.4.13 pairs label 1, which means right, with its second choice


def test_records_choices_are_the_query_with_each_entity_once() -> None:
    task = make_task("record", data=MADE_UP)
    example = next(one.example for one in task.episodes(9, 0, 0) if one.example.id == "1")
    assert example.references == ("Tern", "Agnes Brown", "Brown", "Erik")  # the file has Tern twice
    assert len(set(example.completions)) == 4
    assert example.completions[example.gold] == "- The new keeper, Erik, is her son"
    assert example.context.endswith("- Keeper goes after 40 years.\n- Her son keeps the lamp of Tern.\n")
    answers = [Answer(example=example, logprobs=(0.0, -1, -1, -1), n_tokens=(9,) * 4)]
    assert [metric.of(answers) for metric in task.metrics] == [0.0, 0.0]


def test_what_else_an_entity_of_record_holds_has_no_effect(tmp_path: Path) -> None:
    expected = [one.example for one in make_task("record", data=MADE_UP).episodes(9, 0, 0)]
    (tmp_path / "ReCoRD").mkdir()
    text = MADE_UP.require("record", "ReCoRD/val.jsonl").text()
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    for row in lines:
        for entity in row["passage"]["entities"]:
            entity |= {"text": "another", "type": "person", "1": None}
    (tmp_path / "ReCoRD" / "val.jsonl").write_text("\n".join(map(json.dumps, lines)))
    task = make_task("record", data=DataFolder(tmp_path))
    assert [one.example for one in task.episodes(9, 0, 0)] == expected


def test_every_right_entity_of_record_is_right(shared_data: Path) -> None:
    task = sample("record", shared_data)
    n_right = {one.example.id: 1 + len(one.example.also_right) for one in task.episodes(9, 0, 0)}
    n_choices = {one.example.id: len(one.example.completions) for one in task.episodes(9, 0, 0)}
    assert n_right == {"0": 2, "1": 1}
    assert task.chance == pytest.approx((2 / n_choices["0"] + 1 / 6) / 2)
