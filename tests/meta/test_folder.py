"""An experiment's folder: what else lies there is never lost, and what belongs to it goes on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save_file

from fewshot.base.lock import hold, is_empty
from fewshot.cli.main import main

FEW = ["--outer.n_iterations", "4", "--outer.report_every", "2", "--test_tasks", "3", "--learner.compile", "untraced"]


def sinusoid(folder: Path | str, *more: str) -> int:
    return main(["meta", "sinusoid", *FEW, *more, "--out", str(folder)])


def content(folder: Path) -> dict[str, bytes]:
    """Every file, whatever its depth; a lock is nothing."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert "fewshot: " in error
    (line,) = [line for line in error.splitlines() if line.startswith("fewshot: ")]
    assert "Traceback" not in error
    return line


def finished(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, bytes]:
    assert sinusoid(folder, *more) == 0
    capsys.readouterr()
    return content(folder)


def test_another_learner_in_the_same_folder_leaves_the_first_result(tmp_path, capsys):
    before = finished(tmp_path, capsys)
    assert sinusoid(tmp_path, "--learner", "pretrain") == 2
    assert "--out" in refused(capsys)
    assert content(tmp_path) == before


def test_the_same_command_again_ends_with_the_same_files(tmp_path, capsys):
    before = finished(tmp_path, capsys)
    assert finished(tmp_path, capsys) == before


@pytest.mark.parametrize("name", ["maml.safetensors", "result.json", "report.html", "result-1.json"])
def test_what_a_killed_process_left_behind_is_no_hindrance(name, tmp_path, capsys):
    left = tmp_path / f".{name}.k2x_9a.partial"
    left.mkdir()
    (left / name).write_bytes(b"half")
    finished(tmp_path, capsys)
    finished(tmp_path, capsys)


def test_measured_otherwise_the_earlier_result_is_kept_beside(tmp_path, capsys):
    before = finished(tmp_path, capsys)
    after = finished(tmp_path, capsys, "--test_tasks", "2")
    assert after["maml.safetensors"] == before["maml.safetensors"]
    assert after["result-1.json"] == before["result.json"] != after["result.json"]
    third = finished(tmp_path, capsys, "--test_tasks", "4")
    assert (third["result-1.json"], third["result-2.json"]) == (before["result.json"], after["result.json"])


FOREIGN = {
    "a run's page": "report.html",
    "a run's configuration": "config.yaml",
    "a thesis": "thesis.txt",
    "a folder": "checkpoints/step-1/model.safetensors",
    "a hidden file": ".netrc",
    "weights of another name": "model.safetensors",
    "a result that is none": "result.json",
    "a kept result alone": "result-1.json",
    "a state of another learner": "anil.safetensors",
    "an empty file": "notes",
    "a name that begins like ours": "result.json.bak",
    "a name in other letters": "Report.HTML",
}


@pytest.mark.parametrize("name", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_with_something_else_in_it_is_refused_as_it_is(name, tmp_path, capsys):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = content(tmp_path)
    assert sinusoid(tmp_path) == 2
    assert "--out" in refused(capsys)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["thesis.txt", "config.yaml", "checkpoints/x", "anil.safetensors"])
def test_so_is_one_where_it_was_put_beside_a_finished_experiment(name, tmp_path, capsys):
    finished(tmp_path, capsys)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = content(tmp_path)
    assert sinusoid(tmp_path) == 2
    assert name.partition("/")[0] in refused(capsys)
    assert content(tmp_path) == before


def test_no_lock_is_left_in_a_stranger_s_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    monkeypatch.chdir(tmp_path)
    assert sinusoid("") == 2
    assert "thesis.txt" in refused(capsys)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_no_folder_is_refused_as_it_is(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "link").symlink_to("thesis.txt")
    os.mkfifo(tmp_path / "pipe")
    for name in ("thesis.txt", "link", "pipe"):
        assert sinusoid(tmp_path / name) == 2
        assert "is not a folder" in refused(capsys)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "pipe").is_fifo()


def test_a_result_of_other_settings_without_its_state_is_refused(tmp_path, capsys):
    finished(tmp_path, capsys)
    (tmp_path / "maml.safetensors").unlink()
    before = content(tmp_path)
    assert sinusoid(tmp_path, "--outer.lr", "0.01") == 2
    assert "outer.lr" in refused(capsys)
    assert content(tmp_path) == before
    assert sinusoid(tmp_path) == 0  # trained anew, as its own settings say
    assert (tmp_path / "result.json").read_bytes() == before["result.json"]


def test_the_settings_that_differ_are_named(tmp_path, capsys):
    finished(tmp_path, capsys)
    assert sinusoid(tmp_path, "--outer.lr", "0.01", "--widths", "[3]") == 2
    line = refused(capsys)
    assert "belongs to other settings" in line
    assert "outer.lr" in line
    assert "widths" in line


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, capsys):
    with hold(tmp_path, doing="something else"):
        assert sinusoid(tmp_path) == 2
        assert "in use by process" in refused(capsys)
    assert is_empty(tmp_path)


def test_all_states_are_looked_at_before_any_loop_is_trained(tmp_path, capsys):
    few = ["meta", "regression", "--outer.n_iterations", "2", "--learner_outer.n_iterations", "2", "--test_tasks", "2",
           "--n_examples", "5", "--learner.compile", "untraced", "--out", str(tmp_path)]  # fmt: skip
    assert main(few) == 0
    (tmp_path / "context.safetensors").unlink()
    (tmp_path / "maml.safetensors").write_bytes(b"damaged")
    capsys.readouterr()
    assert main(few) == 2
    assert "maml.safetensors is damaged" in refused(capsys)
    assert not (tmp_path / "context.safetensors").exists()


# What is learned from is known by its content


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """Nine classes of three drawings each."""
    for c in range(9):
        draw_class(tmp_path / "drawings", c)
    return tmp_path / "drawings"


def draw_class(folder: Path, c: int) -> None:
    (folder / f"c{c}").mkdir(parents=True)
    for i in range(3):
        image = Image.new("1", (8, 8), 1)
        ImageDraw.Draw(image).line((c, i, 7 - c, 6 + i), 0, 2)
        image.save(folder / f"c{c}" / f"{i}.png")


def omniglot(data: Path | str, out: Path, *more: str) -> int:
    small = ["--n_ways", "2", "--data.side", "8", "--data.test", "0.3", "--data.validation", "0", "--learner.n_tasks",
             "2", "--network.n_filters", "2", "--network.n_blocks", "1", "--outer.n_iterations", "2", "--test.n_tasks",
             "3", "--learner.compile", "untraced"]  # fmt: skip
    return main(["meta", "omniglot", "--data.path", str(data), *small, "--out", str(out), *more])


def _replace_drawing(folder: Path) -> None:
    Image.new("1", (8, 8), 0).save(folder / "c3" / "1.png")


def _swap_labels(folder: Path) -> None:
    (folder / "c1").rename(folder / "x")
    (folder / "c2").rename(folder / "c1")
    (folder / "x").rename(folder / "c2")


CHANGES = {
    "a class more": lambda folder: draw_class(folder, 9),
    "a class less": lambda folder: shutil.rmtree(folder / "c0"),
    "a drawing less": lambda folder: (folder / "c3" / "1.png").unlink(),
    "a drawing more": lambda folder: shutil.copy(folder / "c3" / "1.png", folder / "c3" / "9.png"),
    "another drawing": _replace_drawing,
    "another label": lambda folder: (folder / "c4").rename(folder / "c44"),
    "two labels swapped": _swap_labels,
    "a drawing in another class": lambda folder: (folder / "c4" / "0.png").rename(folder / "c5" / "0b.png"),
    "a label one level deeper": lambda folder: (folder / "c4").rename(folder / "c5" / "c4"),
    "drawings in another order": lambda folder: (folder / "c4" / "0.png").rename(folder / "c4" / "9.png"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_classes_are_not_measured_with_what_was_trained_on_others(change, drawings, tmp_path, capsys):
    out = tmp_path / "out"
    assert omniglot(drawings, out) == 0
    before = content(out)
    change(drawings)
    capsys.readouterr()
    assert omniglot(drawings, out) == 2
    assert "data.path" in refused(capsys)
    assert content(out) == before


def test_the_same_classes_are_the_same_wherever_they_lie(drawings, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert omniglot(drawings, out) == 0
    state = (out / "maml.safetensors").read_bytes()
    elsewhere = tmp_path / "elsewhere" / "drawings"
    shutil.copytree(drawings, elsewhere)
    shutil.make_archive(str(tmp_path / "packed" / "drawings"), "zip", drawings)
    (tmp_path / "link").symlink_to(drawings)
    monkeypatch.chdir(tmp_path)
    for path in ("drawings", "./drawings/", "out/../drawings", elsewhere, "packed/drawings.zip", "link"):
        assert omniglot(path, out) == 0, path
    assert (out / "maml.safetensors").read_bytes() == state


# A state is taken as it was written, or not at all


def _rewritten(path: Path, change) -> None:
    """The state with other values, in a file that is in order."""
    with safe_open(path, "pt") as file:
        facts, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, facts)
    save_file(tensors, path, metadata=facts)


def _negate(tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> None:
    tensors["learned.weights.hidden1.weight"].flatten()[:40].neg_()


def _swap(tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> None:
    a, b = "learned.weights.hidden0.bias", "learned.weights.hidden1.bias"
    tensors[a], tensors[b] = tensors[b], tensors[a]


DAMAGES = {
    "40 signs": _negate,
    "two tensors swapped": _swap,
    "one last bit": lambda t, f: t["learned.weights.head.bias"].view(torch.int32).bitwise_xor_(1),
    "a moment": lambda t, f: t["optimizer.0.exp_avg"].add_(1),
    "a tensor gone": lambda t, f: t.pop("learned.weights.head.bias"),
    "a tensor more": lambda t, f: t.update(more=torch.zeros(1)),
    "another shape": lambda t, f: t.update({"learned.weights.head.bias": torch.zeros(1, 1)}),
    "another kind of number": lambda t, f: t.update({k: v.half() for k, v in t.items()}),
    "another iteration": lambda t, f: f.update(iteration="3"),
    "an iteration that is none": lambda t, f: f.update(iteration='"x"'),
    "another history": lambda t, f: f.update(history="[]"),
    "settings gone": lambda t, f: f.pop("about"),
    "all it says gone": lambda t, f: f.clear(),
    "brackets without end": lambda t, f: f.update(about="[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_state_that_was_changed_is_refused_as_damaged(damage, tmp_path, capsys):
    finished(tmp_path, capsys)
    _rewritten(tmp_path / "maml.safetensors", damage)
    before = content(tmp_path)
    assert sinusoid(tmp_path) == 2
    line = refused(capsys)
    assert "maml.safetensors" in line
    assert "is damaged" in line
    assert content(tmp_path) == before


def test_a_state_of_before_there_were_checksums_goes_on_and_that_is_said(tmp_path, capsys):
    before = finished(tmp_path, capsys)
    _rewritten(tmp_path / "maml.safetensors", lambda tensors, facts: facts.pop("sha256"))
    assert sinusoid(tmp_path) == 0
    assert "has no checksum" in capsys.readouterr().err
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(before["result.json"])
