"""A file of results that was changed or damaged is left out and named; no other is lost by it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from opposites import opposites

from fewshot.base.errors import FewshotError
from fewshot.evaluate.store.read import read_results, read_steps


def the_file(root: Path) -> Path:
    (path,) = root.glob("step-*/opposites.json")
    return path


CHANGES = {
    "a value": lambda one: {**one, "value": 0.965},
    "an interval": lambda one: {**one, "low": 0.0, "high": 0.1},
    "the number of questions": lambda one: {**one, "n": 2000},
    "the metric": lambda one: {**one, "metric": "f1"},
    "the questions": lambda one: {**one, "questions": "0" * 16},
    "the seed": lambda one: {**one, "seed": 8},
    "chance": lambda one: {**one, "chance": None if one["chance"] else 0.5},
    "the source": lambda one: {**one, "source": "other.txt"},
    "a sample": lambda one: {**one, "samples": []},
    "the paper's name": lambda one: {**one, "paper_name": "HellaSwag"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_by_hand_is_left_out_and_said_until_it_is_gone(tmp_path, measured, capsys, change):
    root = tmp_path / "evaluations"
    measured()
    plain = json.loads(the_file(root).read_text())
    plain["results"][0] = change(plain["results"][0])
    the_file(root).write_text(json.dumps(plain, indent=7))  # how it is laid out is no change
    for n_measured in (2, 3):
        capsys.readouterr()
        assert [one.shots for one in read_results(root)] == [1, 2][: n_measured - 1]
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "opposites.json: 1 of its results were changed after they were measured and are left out" in said
        assert "measure them again" in said
        measured(shots=(2,))


def test_a_changed_value_that_is_measured_again_is_shown_again(tmp_path, measured, capsys):
    root = tmp_path / "evaluations"
    measured()
    before = read_results(root)
    plain = json.loads(the_file(root).read_text())
    for one in plain["results"]:
        one["value"] = 0.965
    the_file(root).write_text(json.dumps(plain))
    assert read_steps(root) == {}
    assert "2 of its results" in capsys.readouterr().err
    measured()
    assert read_results(root) == before
    assert "left out" not in capsys.readouterr().err


def test_files_as_they_were_written_are_read_without_a_word(tmp_path, measured, capsys):
    measured()
    measured(limit=6)
    capsys.readouterr()
    assert read_results(tmp_path / "evaluations")
    assert capsys.readouterr().err == ""


DAMAGED = {
    "a value that is NaN": lambda text: re.sub(r'"value": [\d.]+', '"value": NaN', text, count=1),
    "an interval that is infinite": lambda text: re.sub(r'"high": [\d.]+', '"high": Infinity', text, count=1),
    "brackets without end": lambda text: "[" * 100_000,
    "a number of thousands of digits": lambda text: text.replace('"step": 10', f'"step": {"9" * 5000}'),
    "no results": lambda text: "{}",
    "a list": lambda text: "[]",
    "nothing": lambda text: "",
    "half of it": lambda text: text[: len(text) // 2],
    "a step in words": lambda text: text.replace('"step": 10', '"step": "ten"'),
    "results that are numbers": lambda text: '{"results": [1, 2]}',
    "fewer checksums than results": lambda text: text.replace('"checksums": [', '"checksums": ["a",'),
    "a text for a number": lambda text: text.replace('"shots": 0', '"shots": "none"'),
    "a field that is missing": lambda text: text.replace('"metric": "accuracy",', "", 1),
    "a binary file": lambda text: "\0\1",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_line_with_its_name_to_read_and_to_write(tmp_path, measured, capsys, damage):
    root = tmp_path / "evaluations"
    measured()
    measured(task=opposites(name="contrasts"))
    path = the_file(root)
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    for n_others in (2, 3):
        capsys.readouterr()
        assert [one.task for one in read_results(root)].count("contrasts") == n_others
        said = capsys.readouterr().err
        assert re.fullmatch(r".*opposites\.json.* left out: (move it away|measure them again).*\n", said)
        with pytest.raises(FewshotError, match=r"opposites\.json"):
            measured(shots=(2,))
        assert path.read_bytes() == before
        measured(task=opposites(name="contrasts"), shots=(2,))
    assert {folder.name for folder in root.glob("step-*")} == {"step-00000010"}


@pytest.mark.parametrize("damage", ["a value that is NaN", "a text for a number", "a field that is missing"])
def test_of_a_file_without_checksums_what_is_no_result_leaves_out_the_file(tmp_path, measured, capsys, damage):
    root = tmp_path / "evaluations"
    measured()
    measured(task=opposites(name="contrasts"))
    path = the_file(root)
    plain = json.loads(path.read_text())
    del plain["checksums"]
    path.write_text(DAMAGED[damage](json.dumps(plain)))
    capsys.readouterr()
    assert {one.task for one in read_results(root)} == {"contrasts"}
    assert re.fullmatch(r".*opposites\.json .* left out: move it away .*\n", capsys.readouterr().err)


def test_a_damaged_file_is_refused_before_anything_is_asked(tmp_path, measured):
    measured()
    the_file(tmp_path / "evaluations").write_text("{")
    asked = []
    with pytest.raises(FewshotError, match=r"opposites\.json"):
        measured(shots=(2,), on_progress=lambda *done: asked.append(done))
    assert asked == []
