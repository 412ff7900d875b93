from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile, BadValue, FewshotError
from fewshot.base.lock import hold
from fewshot.checkpoint.folder import RunFolder, checkpoint_name, step_of
from fewshot.checkpoint.load import load_run


@pytest.mark.parametrize("step", [0, 7, 99_999_999, 100_000_000, 12_345_678_901])
def test_a_checkpoint_is_named_by_its_step(step: int) -> None:
    assert step_of(checkpoint_name(step)) == step


NOT_OURS = [
    "step-00000160-best",
    "step-old",
    "step-notes.txt",
    "step-00000101.damaged",
    "step-101",
    "step-000000101",  # one digit too many for its number: nobody but a user writes it
    "step-٠٠٠٠٠١٠١",  # digits, but not those that the program writes
    "step-00000101 ",
    "step-00000101\n",
    "Step-00000101",
    "step--0000101",
    "step-00000101.old",
    ".step-00000101.abc.partial",
    "copy-of-step-00000101",
]


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_name_that_the_program_does_not_write_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    assert step_of(name) is None
    for entry in (name, checkpoint_name(5)):
        file(f"checkpoints/{entry}/manifest.json")(tmp_path)
    assert [path.name for path in RunFolder(tmp_path).checkpoint_folders()] == [checkpoint_name(5)]


def test_checkpoints_are_folders_with_a_manifest_and_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert RunFolder(tmp_path).checkpoint_folders() == []
    for step in (100_000_000, 99_999_999, 3):
        file(f"checkpoints/{checkpoint_name(step)}/manifest.json")(tmp_path)
    (tmp_path / "checkpoints" / checkpoint_name(4)).touch()
    file(f"checkpoints/{checkpoint_name(5)}/model.safetensors")(tmp_path)  # the manifest is written last
    assert [step_of(path.name) for path in RunFolder(tmp_path).checkpoint_folders()] == [3, 99_999_999, 100_000_000]
    assert RunFolder(tmp_path / "none").checkpoint_folders() == []


def file(name: str, text: str = "mine") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return make


TAKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (file(f"checkpoints/{checkpoint_name(0)}/manifest.json"), "a converted model"),
    "a copy of weights": (file("checkpoints/step-00000160-best/model.safetensors"), r"\(it holds checkpoints\)"),
    "metrics": (file("metrics.jsonl", '{"epoch": 3}\n'), r"\(it holds metrics\.jsonl\)"),
    "a tokenizer": (file("tokenizer.json"), "not empty"),
    "data": (file("data/text-train-00000.bin"), r"\(it holds data\)"),
    "an empty data folder": (lambda folder: (folder / "data").mkdir(), r"\(it holds data\)"),
    "a thesis": (file("thesis.tex"), r"\(it holds thesis\.tex\): give a new folder"),
    "a hidden file": (file(".gitignore"), r"\(it holds \.gitignore\)"),
    "results": (file("evaluations/lambada.json", "{}"), "not empty"),
    "a report": (file("report.html"), "not empty"),
    "a dangling link": (lambda folder: (folder / "metrics.jsonl").symlink_to("nowhere"), r"metrics\.jsonl"),
    "a run": (file("config.yaml"), "already holds a run: continue it with 'fewshot resume"),
    "a run whose making was cut at its end": (
        lambda folder: [file(name)(folder) for name in ("config.yaml", ".unfinished")],
        "already holds a run",
    ),
    "many books": (
        lambda folder: [file(f"{letter}.txt")(folder) for letter in "edcba"],
        r"\(it holds a\.txt, b\.txt, c\.txt and 2 more\)",
    ),
    "somebody's .unfinished folder": (lambda folder: (folder / ".unfinished").mkdir(), "not empty"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_folder_with_anything_that_could_be_overwritten_is_refused(tmp_path: Path, what: str) -> None:
    make, message = TAKEN[what]
    make(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    for refuse in (lambda: RunFolder(tmp_path).check_is_new(), lambda: RunFolder(tmp_path).making().__enter__()):
        with pytest.raises(BadValue, match=message) as caught:
            refuse()
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_or_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(BadValue, match="f is a file; give the name of a new folder"):
        RunFolder(tmp_path / "f").check_is_new()
    with pytest.raises(BadValue, match="caf� is not UTF-8"):
        RunFolder(Path(os.fsdecode(b"caf\xe9"))).check_is_new()


def test_what_was_not_there_was_empty_or_only_held_is_new(tmp_path: Path) -> None:
    RunFolder(tmp_path / "none").check_is_new()
    assert not (tmp_path / "none").exists()
    RunFolder(tmp_path).check_is_new()
    with hold(tmp_path, doing="this"):
        RunFolder(tmp_path).check_is_new()
    RunFolder(tmp_path).check_is_new()


def test_what_was_begun_and_not_finished_may_be_begun_again(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), RunFolder(tmp_path).making():
        (tmp_path / "data").mkdir()
        raise KeyboardInterrupt
    with RunFolder(tmp_path).making():
        (tmp_path / "config.yaml").touch()
    with pytest.raises(BadValue, match="already holds a run"):
        RunFolder(tmp_path).check_is_new()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_checkpoint_belongs_to_the_run_that_it_lies_in(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert RunFolder.of_checkpoint(run.checkpoint(5)) == run
    assert RunFolder.of_checkpoint(tmp_path / "copies" / "step-00000005") is None


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"is not a run: it has no config\.yaml$"):
        RunFolder(tmp_path).read_config()
    (tmp_path / "config.yaml").write_text("loop: {seed: 3}")
    assert RunFolder(tmp_path).read_config() == {"loop": {"seed": 3}}


def test_a_folder_of_runs_is_told_from_an_empty_one_and_a_run_in_it_is_named(tmp_path: Path) -> None:
    for name in ("1-of-2", "2-of-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("loop: {seed: 3}")
    instead = f"it is a folder of runs: give one, such as {tmp_path / '2-of-2'}"
    for look in (RunFolder(tmp_path).read_config, RunFolder(tmp_path).check_can_go_on, lambda: load_run(tmp_path)):
        with pytest.raises(FewshotError, match=re.escape(instead)):
            look()
