"""A run folder: who may write there, what is never overwritten, what stays as it was chosen."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fewshot.base.config import read_yaml, write_yaml
from fewshot.base.errors import BadFile, BadValue, FewshotError, KernelUnsupported
from fewshot.base.lock import hold
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import find_checkpoint
from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.kernels.choose import choose_for
from fewshot.kernels.interface import Requirements
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.build import build
from fewshot.train.run import read_run_config, resume, start


def quiet(line: str) -> None:
    """What `say` may be."""


def content(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def same_weights(a: Path, b: Path) -> bool:
    first, second = (load_file(find_checkpoint(run).path / "model.safetensors") for run in (a, b))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def stopped(tmp_path: Path, tiny: Any) -> Path:
    """A run of 10 steps that was left after the fifth."""
    run = tmp_path / "stopped"
    reports = start(tiny(loop={"checkpoint_every": 5}), run, say=quiet)
    for report in reports:
        if report.step == 5:
            break
    reports.close()  # type: ignore[attr-defined]
    return run


# ---- nobody but one process


HELD = {
    "plain": lambda folder: folder,
    "relative": lambda folder: Path(os.path.relpath(folder)),
    "dotted": lambda folder: folder / ".." / folder.name,
    "linked": lambda folder: folder.parent / "link",
    "linked above": lambda folder: folder.parent / "up" / folder.name,
}


@pytest.mark.parametrize("spelled", HELD)
@pytest.mark.parametrize("command", ["train", "resume", "demo"])
def test_whoever_comes_second_is_told_before_any_text_is_read(
    tmp_path: Path, stopped: Path, command: str, spelled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped if command == "resume" else tmp_path / "new"
    (tmp_path / "empty.txt").touch()  # an error as soon as it is read
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "up").symlink_to(tmp_path)
    with hold(folder, doing="fewshot train"):
        before = content(folder)
        path = str(HELD[spelled](folder))
        words = {
            "train": ["--text", str(tmp_path / "empty.txt"), "--out", path],
            "resume": [path],
            "demo": ["--out", path],
        }
        assert main([command, *words[command]]) == 2
        assert content(folder) == before
    error = capsys.readouterr().err
    assert f"is in use by process {os.getpid()} on " in error
    assert error.count("\n") == 1


def test_a_folder_is_free_again_when_its_process_has_died_or_its_run_was_left(stopped: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-m", "fewshot", "resume", str(stopped)], stderr=subprocess.DEVNULL)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert [report.step for report in resume(stopped, say=quiet)] == [6, 7, 8, 9, 10]
    assert list(resume(stopped, say=quiet)) == []


def test_of_two_processes_that_go_on_at_once_one_does_and_no_line_is_lost(tmp_path: Path, tiny: Any) -> None:
    run = tmp_path / "run"
    reports = start(tiny(n_steps=100, loop={"checkpoint_every": 3}), run, say=quiet)
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    words = [sys.executable, "-m", "fewshot", "resume", str(run)]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = {process.communicate()[1] for process in both}
    codes = sorted(process.returncode for process in both)
    if codes == [0, 0]:  # the first was done before the second began
        pytest.skip("they did not meet")
    assert codes == [0, 2], errors
    assert any("is in use by process" in error for error in errors)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 101))


# ---- nothing is overwritten


def test_a_converted_model_is_neither_trained_over_nor_resumed(
    stopped: Path, tmp_path: Path, tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(stopped), str(tmp_path / "hf")]) == 0
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "conv")]) == 0
    before = content(tmp_path / "conv")
    capsys.readouterr()
    assert main(["resume", str(tmp_path / "conv")]) == 2
    assert main(["train", "--text", str(tiny.text), "--out", str(tmp_path / "conv")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("a converted model, which a new run can begin with (fewshot train --start)" in line for line in lines)
    assert content(tmp_path / "conv") == before


def test_a_folder_of_somebodys_files_is_refused_before_anything_is_written(tmp_path: Path, tiny: Any) -> None:
    for name in ("tokenizer.json", "metrics.jsonl", "data/text-train-00000.bin"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("mine")
    before = content(tmp_path / "mine")
    with pytest.raises(BadValue, match=r"mine is not empty \(it holds data, metrics.jsonl, tokenizer.json\)"):
        next(start(tiny(), tmp_path / "mine", say=quiet))
    assert content(tmp_path / "mine") == before
    assert not (tmp_path / "mine" / ".lock").exists()


@pytest.mark.parametrize("out", ["", "."])
def test_the_current_folder_is_not_trained_in_by_accident(
    out: str, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.txt").touch()
    assert main(["train", "--text", str(tiny.text), f"--out={out}"]) == 2
    assert main(["demo", f"--out={out}"]) == 2
    assert capsys.readouterr().err.count("--out is empty" if out == "" else "is not empty (it holds thesis.txt)") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_out_that_is_not_utf8_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = os.fsdecode(os.fsencode(tmp_path) + b"/u2\xe9")
    assert main(["train", "--text", str(tmp_path / "empty.txt"), "--out", out]) == 2
    assert "is not UTF-8" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["make_tokenizer", "build_tokens", "resolve", "write_yaml"])
def test_what_was_stopped_before_training_is_simply_given_again(
    where: str,
    tmp_path: Path,
    tiny: Any,
    monkeypatch: pytest.MonkeyPatch,
    set_in_module: Callable[[object, str, object], None],
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    set_in_module(start, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(start(tiny(), tmp_path / "run", say=quiet))
    monkeypatch.undo()
    with pytest.raises(BadFile, match="was stopped before its training began: run 'fewshot train' again"):
        next(resume(tmp_path / "run", say=quiet))
    assert [report.step for report in start(tiny(n_steps=2), tmp_path / "run", say=quiet)] == [1, 2]
    assert not (tmp_path / "run" / ".unfinished").exists()
    with pytest.raises(BadValue, match="already holds a run"):
        next(start(tiny(), tmp_path / "run", say=quiet))


def test_resuming_what_is_no_run_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="none does not exist; a run folder"):
        next(resume(tmp_path / "none", say=quiet))
    assert not (tmp_path / "none").exists()


NEIGHBOURS: dict[str, Callable[[Path, Path], object]] = {
    "a copy": lambda folder, newest: shutil.copytree(newest, folder / f"{newest.name}-best"),
    "a copy of a name of nine digits": lambda folder, newest: shutil.copytree(newest, folder / "step-000000160"),
    "a copy of few digits": lambda folder, newest: shutil.copytree(newest, folder / "step-999"),
    "a copy called old": lambda folder, newest: shutil.copytree(newest, folder / "step-old"),
    "a note": lambda folder, newest: (folder / "step-notes.txt").write_text("mine"),
    "a file with a checkpoint's name": lambda folder, newest: (folder / "step-00000001").write_text("mine"),
    "a damaged one moved aside": lambda folder, newest: (folder / "step-00000101.damaged").mkdir(),
    "an older one with a note in it": lambda folder, newest: _copy_as(newest, folder / "step-00000001", 1, note=True),
    "a folder with a checkpoint's name": lambda folder, newest: (folder / "step-00000002").mkdir(),
    "a copy under the name of another step": lambda folder, newest: shutil.copytree(newest, folder / "step-00000003"),
    "a link to a checkpoint": lambda folder, newest: (folder / "step-00000004").symlink_to(newest),
    "a hidden folder": lambda folder, newest: (folder / ".step-00000101.mine").mkdir(),
    "a zip": lambda folder, newest: (folder / "step-00000005.zip").write_text("mine"),
}


def _copy_as(newest: Path, target: Path, step: int, *, note: bool) -> None:
    shutil.copytree(newest, target)
    manifest = json.loads((target / "manifest.json").read_text())
    del manifest["sha256"]  # of the manifest itself; older versions wrote none
    (target / "manifest.json").write_text(json.dumps(manifest | {"step": step}))
    if note:
        (target / "notes.txt").write_text("mine")


@pytest.mark.parametrize("what", NEIGHBOURS)
def test_what_lies_beside_the_checkpoints_is_neither_used_nor_deleted(stopped: Path, what: str) -> None:
    newest = find_checkpoint(stopped).path
    NEIGHBOURS[what](newest.parent, newest)
    beside = {path for path in newest.parent.iterdir() if path != newest}
    before = {path: content(path) if path.is_dir() else path.read_bytes() for path in beside}
    assert find_checkpoint(stopped).path == newest
    steps = [report.step for report in resume(stopped, say=quiet, overrides={"loop": {"checkpoint_every": 1}})]
    assert steps == [6, 7, 8, 9, 10]
    kept = {path.name for path in newest.parent.iterdir()} - {path.name for path in beside}
    assert kept == {"step-00000009", "step-00000010"}
    for path, was in before.items():
        if not path.is_symlink():  # whose target was a checkpoint, and is pruned
            assert (content(path) if path.is_dir() else path.read_bytes()) == was
        assert path.is_symlink() or path.exists()


def test_a_run_whose_checkpoints_were_all_renamed_does_not_start_again_from_nothing(stopped: Path) -> None:
    newest = find_checkpoint(stopped).path
    newest.rename(newest.with_name("step-best"))
    before = content(stopped)
    with pytest.raises(BadFile, match=r"holds step-best, of which none is a folder named step-N"):
        next(resume(stopped, say=quiet))
    assert content(stopped) == before


def test_the_newest_under_the_name_of_another_step_is_not_used_and_not_passed_over_in_silence(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = find_checkpoint(stopped).path
    shutil.copytree(newest, newest.with_name("step-00000123"))
    assert find_checkpoint(stopped).path == newest
    line = "step-00000123 holds step 5, not the step in its name; using step 5\n"
    assert capsys.readouterr().err.endswith(line)


# ---- what was chosen stays


def with_kernels(set_in_module: Callable[[object, str, object], None], dense: str, other: str) -> None:
    """Make these two come out as the fastest, for the dense pattern and for all others."""

    def measured(need: Requirements, fitting: Mapping[str, object]) -> dict[str, float]:
        fastest = dense if need.pattern.text == "dense" else other
        return {name: 1.0 if name == fastest else 2.0 for name in fitting}

    set_in_module(choose_for, "time_kernels", measured)


@pytest.mark.parametrize("pattern", ["dense", "alternate(dense, banded(3))"])
def test_a_run_goes_on_with_the_kernels_that_it_began_with(
    pattern: str, tmp_path: Path, tiny: Any, set_in_module: Callable[[object, str, object], None]
) -> None:
    given = tiny(model={"pattern": pattern}, loop={"kernel": "auto", "compile": "auto", "checkpoint_every": 4})
    said: list[str] = []
    with_kernels(set_in_module, "blocked", "sdpa")
    list(start(given, tmp_path / "whole", say=quiet))
    reports = start(given, tmp_path / "run", say=quiet)
    while next(reports).step < 5:
        pass
    reports.close()  # type: ignore[attr-defined]
    stored = read_yaml(tmp_path / "run" / "config.yaml")["loop"]
    assert stored["kernel"] == ("blocked" if pattern == "dense" else {"dense": "blocked", "banded(3)": "sdpa"})
    assert (stored["compile"], stored["precision"]) == ("never", "float32")
    with_kernels(set_in_module, "sdpa", "blocked")
    assert [report.step for report in resume(tmp_path / "run", say=said.append)] == [5, 6, 7, 8, 9, 10]
    assert any("kernel blocked for dense: as configured" in line for line in said)
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_an_old_configuration_goes_on_and_its_choices_are_then_stored(
    stopped: Path, set_in_module: Callable[[object, str, object], None]
) -> None:
    config = read_yaml(stopped / "config.yaml")
    config["loop"] |= {"kernel": "auto", "compile": "auto", "precision": "auto"}
    write_yaml(stopped / "config.yaml", config)
    with_kernels(set_in_module, "sdpa", "sdpa")
    next(resume(stopped, say=quiet, overrides={"loop": {"checkpoint_every": 3}}))
    config["loop"] |= {"kernel": "sdpa", "compile": "never", "precision": "float32"}
    assert read_yaml(stopped / "config.yaml") == config


def test_a_kernel_that_cannot_be_had_is_one_line_with_the_way_on(stopped: Path) -> None:
    config = read_yaml(stopped / "config.yaml")
    config["loop"]["kernel"] = "triton"
    write_yaml(stopped / "config.yaml", config)
    with pytest.raises(KernelUnsupported, match=r"kernel 'triton' does not fit dense: .*--loop.kernel auto"):
        next(resume(stopped, say=quiet))
    next(resume(stopped, say=quiet, overrides={"loop": {"kernel": "reference"}}))
    assert read_yaml(stopped / "config.yaml")["loop"]["kernel"] == "reference"


def test_a_compiler_that_is_gone_is_one_line_with_the_way_on(
    stopped: Path, set_in_module: Callable[[object, str, object], None]
) -> None:
    config = read_yaml(stopped / "config.yaml")
    config["loop"]["compile"] = "always"
    write_yaml(stopped / "config.yaml", config)
    set_in_module(build, "compiler_problem", lambda device: "no C++ compiler")
    with pytest.raises(BadValue, match=r"there is no C\+\+ compiler: give --loop.compile never"):
        next(resume(stopped, say=quiet))
    next(resume(stopped, say=quiet, overrides={"loop": {"compile": "never"}}))


def test_every_refusal_is_one_line(stopped: Path) -> None:
    for overrides in ({"model": {"n_ctx": 8}}, {"loop": {"seed": 1}}, {"loop": {"micro_rows": 2}}):
        with pytest.raises(FewshotError, match="cannot change when a run is resumed; only") as caught:
            next(resume(stopped, say=quiet, overrides=overrides))
        assert "\n" not in str(caught.value)


def test_an_old_run_whose_values_are_refused_today_goes_on(tmp_path: Path, tiny: Any) -> None:
    reports = start(tiny(loop={"checkpoint_every": 2}), tmp_path / "run", say=quiet)
    for _ in range(3):
        next(reports)
    reports.close()
    config = read_yaml(tmp_path / "run" / "config.yaml")
    old = config["data"]["sources"][0]["name"]
    config["data"]["sources"][0]["name"] = "my books.en"
    config["schedule"]["decay_tokens"] = -5
    write_yaml(tmp_path / "run" / "config.yaml", config)
    for path in (tmp_path / "run" / "data").iterdir():
        path.write_bytes(path.read_bytes().replace(f"{old}-".encode(), b"my books.en-"))
        path.rename(path.with_name(path.name.replace(old, "my books.en")))
    assert list(resume(tmp_path / "run", say=quiet))[-1].step > 3


def test_a_finished_run_says_that_it_is(tmp_path: Path, tiny: Any) -> None:
    list(start(tiny(), tmp_path / "run", say=quiet))
    said: list[str] = []
    assert list(resume(tmp_path / "run", say=said.append)) == []
    assert re.search(r"run is complete: all of its \d+ steps are done", said[0])


def test_what_another_command_began_is_not_trained_over(tmp_path: Path, tiny: Any) -> None:
    save(tmp_path / "run", GPT(GPTConfig(n_layers=1, d_model=8, n_heads=1, n_ctx=8, n_vocab=9)), step=0)
    RunFolder(tmp_path / "run").unfinished.touch()  # a conversion that was killed
    with pytest.raises(BadValue, match="holds a converted model"):
        list(start(tiny(), tmp_path / "run", say=quiet))


@pytest.mark.parametrize(("old", "new"), [(True, "full"), (False, "none")])
def test_an_older_run_says_true_or_false_of_recomputation(stopped: Path, old: bool, new: str) -> None:
    plain = read_yaml(stopped / "config.yaml")
    write_yaml(stopped / "config.yaml", {**plain, "loop": {**plain["loop"], "recompute": old}})
    assert read_run_config(stopped).loop.recompute == new
    assert [report.step for report in resume(stopped, say=quiet)] == [6, 7, 8, 9, 10]
