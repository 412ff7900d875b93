"""`fewshot convert`: what it writes is of use, or nothing is written, and it may be tried again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewshot.base.lock import hold, is_empty
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.formats.hugging_face.folder import write_folder
from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.evaluate.load import load

SHAPE = [
    "--model.n_layers",
    "1",
    "--model.d_model",
    "16",
    "--model.n_heads",
    "2",
    "--model.n_ctx",
    "32",
    "--schedule.batch_tokens",
    "64",
]


@pytest.fixture
def theirs(tmp_path: Path, small_run: Path) -> Path:
    folder = tmp_path / "theirs"
    assert main(["convert", str(small_run), str(folder)]) == 0
    return folder


@pytest.mark.parametrize("kind", ["chars", "bytes"])
def test_a_run_of_characters_or_bytes_is_measured_alike_by_transformers(
    tmp_path: Path, text_file: Path, kind: str
) -> None:
    pytest.importorskip("transformers")
    run, folder, back = tmp_path / "run", tmp_path / "hf", tmp_path / "back"
    words = ["train", "--text", str(text_file), "--out", str(run), "--n_tokens", "640", "--data.tokenizer", kind]
    assert main([*words, *SHAPE, "--loop.compile", "never"]) == 0
    assert main(["convert", str(run), str(folder)]) == 0
    assert main(["convert", str(folder), str(back)]) == 0
    text = "The cat sat on the mat.\n"
    ours, library, again = load(str(run)), load(f"hf:{folder}"), load(str(back))
    ids = ours.tokenizer.encode(text)
    assert library.tokenizer.encode(text) == ids == again.tokenizer.encode(text)
    assert library.tokenizer.decode(ids) == text == again.tokenizer.decode(ids)
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = [loaded.lm.logits(loaded.lm.read(tokens)) for loaded in (ours, library, again)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    assert torch.equal(logits[0], logits[2])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("n_lost", [1, 43])
def test_a_vocabulary_larger_than_the_model_is_refused(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], n_lost: int
) -> None:
    tensors = load_file(theirs / "model.safetensors")
    n_rows = len(tensors["transformer.wte.weight"]) - n_lost
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:n_rows].clone()
    save_file(tensors, theirs / "model.safetensors")
    plain = json.loads((theirs / "config.json").read_text()) | {"vocab_size": n_rows}
    (theirs / "config.json").write_text(json.dumps(plain))
    said = refused(capsys, "convert", theirs, tmp_path / "new")
    assert f"its tokenizer has {n_rows + n_lost} tokens, but the model has {n_rows}" in said
    assert not (tmp_path / "new").exists()


def test_weights_that_are_not_finite_are_not_converted(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(theirs / "model.safetensors")
    tensors["transformer.ln_f.weight"][3] = float("nan")
    save_file(tensors, theirs / "model.safetensors")
    assert "ln_f.weight holds numbers that are not finite" in refused(capsys, "convert", theirs, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("to_run", [True, False])
def test_a_full_disk_does_not_block_the_same_command_afterwards(
    theirs: Path,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_in_module: Callable[[object, str, object], None],
    to_run: bool,
) -> None:
    source, target = theirs if to_run else small_run, tmp_path / "new"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(target))

    for writes in (save, write_folder):
        set_in_module(writes, "write_tensors", full)
    assert main(["convert", str(source), str(target)]) == 2
    monkeypatch.undo()
    assert not (target / "config.json").exists()
    assert not RunFolder(target).checkpoint_folders()
    assert main(["convert", str(source), str(target)]) == 0
    beside = (".lock", "curve.svg")  # a curve, if the run was evaluated by then
    assert sorted(path.name for path in target.iterdir() if path.name not in beside) == (
        ["checkpoints", "tokenizer.json"]
        if to_run
        else [
            "README.md",
            "config.json",
            "export.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    )


def test_a_folder_that_someone_writes_to_is_left_alone(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new"
    with hold(target, doing="fewshot train"):
        assert "is in use by process" in refused(capsys, "convert", theirs, target)
    assert is_empty(target)


@pytest.mark.parametrize("target", ["full", "file", "theirs", "run"])
def test_nothing_is_written_over(
    theirs: Path, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "give" in refused(capsys, "convert", theirs, tmp_path / target)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_exported_run_has_its_card(tmp_path: Path, small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(small_run), str(tmp_path / "out"), "--no-check"]) == 0
    assert capsys.readouterr().out.startswith("written, not checked\n")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"# {small_run.resolve().name}" in text
    assert "written, not checked" in text
    assert "AutoModelForCausalLM" in text
    assert "Scores: not measured." in text or "| task |" in text


def test_targets_are_told_with_the_reason_against_each(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(small_run), "--targets"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {name for name, answer in said.items() if answer == "yes"} >= {"gpt_neo", "code", "onnx", "page"}
    assert "openai-gpt has dense post-ln layers" in said["openai-gpt"]
    assert main(["convert", str(small_run)]) == 2
    assert "give TO, a new folder, or --targets" in capsys.readouterr().err
