"""A finding's file is checked whole before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.zoo.finding import Finding, Paper, Statement, finding_files, read_finding

WHOLE = {
    "title": "A title",
    "paper": {"claim": "A claim.", "source": "Someone 2020"},
    "minutes": 1,
    "command": "meta markov",
    "runs": {"few": {"n_known": 4}, "many": {}},
    "expect": [{"value": "few.x", "at_least": 1}],
}


def finding(**changed: Any) -> Finding:
    given: dict[str, Any] = {
        **WHOLE,
        "paper": Paper(claim="A claim.", source="Someone 2020"),
        "expect": (Statement(value="few.x", at_least=1),),
        **changed,
    }
    return Finding(**given)


def test_runs_lay_their_settings_over_the_common_ones_and_get_the_seeds() -> None:
    tasks = finding(config={"length": 8, "n_known": 1}, seeds=3).tasks()
    assert {name: task.config for name, task in tasks.items()} == {
        "few": {"length": 8, "n_known": 4, "seeds": 3},
        "many": {"length": 8, "n_known": 1, "seeds": 3},
    }
    assert finding().tasks()["many"].config == {}


def test_runs_begin_with_the_file_of_their_name_and_a_changed_file_is_another_task(tmp_path: Path) -> None:
    for name, width in {"few": 16, "many": 32}.items():
        (tmp_path / f"{name}.yaml").write_text(f"length: 8\nreader: {{d_model: {width}, n_layers: 2}}\n")
    given = finding(base=f"{tmp_path}/{{run}}.yaml", config={"length": 9}, command="train --name {run} --seed {seed}")
    before = given.tasks()
    assert before["few.0"].config == {"length": 9, "reader": {"d_model": 16, "n_layers": 2}, "n_known": 4}
    assert before["many.0"].commands == ("train --name many --seed 0",)
    (tmp_path / "many.yaml").write_text("length: 8\n")
    assert given.tasks()["few.0"] == before["few.0"]
    assert given.tasks()["many.0"] != before["many.0"]
    with pytest.raises(BadFile, match=r"nosuch\.yaml"):
        finding(base=f"{tmp_path}/nosuch.yaml").tasks()


def test_a_command_with_a_seed_is_run_for_each() -> None:
    tasks = finding(
        seeds=2, prepare=("demo --out {prepared} --seed {seed}",), command="probe {prepared}", runs={"run": None}
    )
    assert [(name, task.commands) for name, task in tasks.tasks().items()] == [
        ("run.0", ("demo --out {prepared} --seed 0", "probe {prepared}")),
        ("run.1", ("demo --out {prepared} --seed 1", "probe {prepared}")),
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"minutes": 0}, "minutes is 0"),
        ({"seeds": 0}, "seeds"),
        ({"command": " "}, "command is empty"),
        ({"runs": {}}, "runs is empty"),
        ({"runs": {"a.b": {}}}, "the run 'a.b' must be named by"),
        ({"runs": {"a": 3}}, "runs.a is 3, must hold keys and values"),
        ({"expect": ()}, "cannot fail"),
        ({"prepare": ("demo --out {out}",)}, "each must write to {prepared}"),
    ],
)
def test_a_finding_that_cannot_be_run_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        finding(**changed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "asks nothing: give at_least, at_most or above"),
        ({"at_least": 2, "at_most": 1}, "has at_least 2 over at_most 1"),
        ({"at_least": 2, "by": 1}, "has times, by or apart without above"),
        ({"above": "few.y", "seeds": 2}, "has seeds and above"),
    ],
)
def test_a_statement_that_says_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        Statement(value="few.x", **given)


def test_files_and_folders_are_named_once_however_they_are_spelled(tmp_path: Path) -> None:
    file = tmp_path / "rare.yaml"
    file.write_text("title: 3")
    assert finding_files([tmp_path, tmp_path / "." / "rare.yaml", tmp_path.parent / tmp_path.name]) == [file]
    with pytest.raises(BadValue, match=r"rare.yaml lacks paper, minutes, command, runs, expect"):
        read_finding(file)
    with pytest.raises(BadFile, match="does not exist"):
        finding_files([tmp_path / "none.yaml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFile, match=r"holds no .yaml file"):
        finding_files([tmp_path / "empty"])
