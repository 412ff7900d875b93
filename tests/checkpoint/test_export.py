"""An export is compared with what its own program computes, and a wrong one is not left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import shaken
from safetensors.torch import load_file, save_file

from fewshot.base.errors import BadValue, ExportDiffers
from fewshot.checkpoint.export import NOTE, export
from fewshot.checkpoint.formats import table
from fewshot.checkpoint.formats.table import FORMATS
from fewshot.checkpoint.runtimes.compare import NotChecked
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 48, "n_heads": 4, "n_ctx": 40, "n_vocab": 257}
SOURCE = {"run": "run", "step": 3}
CHECKED = [name for name, row in FORMATS.items() if row.compare is not None]


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo"])
def test_an_export_says_what_was_compared(tmp_path: Path, name: str) -> None:
    pytest.importorskip("transformers")
    told = export(tmp_path / "out", shaken(**SHAPE), Bytes(), written_as=name, source=SOURCE)
    note = json.loads((tmp_path / "out" / NOTE).read_text())
    assert (note["format"], note["source"]) == (name, SOURCE)
    assert note["checked"]["by"].startswith("transformers ")
    checked = note["checked"]
    assert (checked["lengths"], checked["greedy_tokens"], checked["texts"]) == ([1, 2, 20, 40], 36, 10)
    assert 0 < checked["largest_difference"] < 2e-5 * checked["largest_logit"]
    assert "36 greedy tokens and the ids of 10 texts are equal" in told
    assert not (tmp_path / "out" / ".lock").exists()


def config_says(**changed: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))

    return change


def weights_have(change_of: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change_of(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return change


def swap_q_and_k(tensors: dict[str, torch.Tensor]) -> None:
    q, k = (f"transformer.h.1.attn.attention.{part}_proj.weight" for part in "qk")
    tensors[q], tensors[k] = tensors[k], tensors[q]


def forget_the_scale(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.h.0.attn.attention.q_proj.weight"] *= 12**0.5


def shift_positions(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"].roll(1, dims=0)


def other_vocabulary(folder: Path) -> None:
    file = folder / "tokenizer.json"
    plain = json.loads(file.read_text(encoding="utf-8"))
    vocab = plain["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(plain), encoding="utf-8")


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "another GELU": (config_says(activation_function="gelu"), "a logit differs"),
    "a window one too wide": (config_says(window_size=9), "a logit differs"),
    "a window one too narrow": (config_says(window_size=7), "a logit differs"),
    "queries and keys swapped": (weights_have(swap_q_and_k), "a logit differs"),
    "a scale forgotten": (weights_have(forget_the_scale), "a logit differs"),
    "positions from the next row": (weights_have(shift_positions), "a logit differs"),
    "another vocabulary": (other_vocabulary, "other ids"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_export_is_noticed_and_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("transformers")
    make_wrong, reason = WRONG[name]
    row = FORMATS["gpt_neo"]

    def write(folder: Path, model: GPT, tokenizer: Bytes) -> None:
        assert row.write is not None
        row.write(folder, model, tokenizer)
        make_wrong(folder)

    changed = {field: getattr(row, field) for field in row.__dataclass_fields__} | {"write": write}
    monkeypatch.setitem(table.FORMATS, "gpt_neo", type(row)(**changed))
    model = shaken(**SHAPE, pattern="alternate(dense, banded(8))")
    with pytest.raises(ExportDiffers, match=reason):
        export(tmp_path / "out", model, Bytes(), written_as="gpt_neo", source=SOURCE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", CHECKED)
def test_without_its_program_an_export_is_written_and_says_that_it_was_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    row = FORMATS[name]

    def missing(*_: object) -> None:
        raise ModuleNotFoundError("their program", name="theirs")

    changed = {field: getattr(row, field) for field in row.__dataclass_fields__} | {"compare": missing}
    monkeypatch.setitem(table.FORMATS, name, type(row)(**changed))
    model = shaken(**SHAPE, block="post-ln" if name == "openai-gpt" else "pre-ln")
    told = export(tmp_path / "out", model, Bytes(), written_as=name, source=SOURCE)
    assert json.loads((tmp_path / "out" / NOTE).read_text())["checked"] is None
    assert told == f"written, not checked: {row.install}"
    assert row.install
    assert row.usage


def with_row(monkeypatch: pytest.MonkeyPatch, name: str, **changed: Any) -> None:
    row = FORMATS[name]
    fields = {field: getattr(row, field) for field in row.__dataclass_fields__} | changed
    monkeypatch.setitem(table.FORMATS, name, type(row)(**fields))


def test_what_lay_in_an_unfinished_folder_is_not_removed_with_a_wrong_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*_: object) -> None:
        raise ExportDiffers("theirs computes something else")

    def breaks(*_: object) -> None:
        raise RuntimeError("killed")

    folder, model = tmp_path / "out", shaken(**SHAPE)
    with_row(monkeypatch, "gpt2", compare=breaks)
    with pytest.raises(RuntimeError, match="killed"):
        export(folder, model, Bytes(), written_as="gpt2", source=SOURCE)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", ".unfinished"]
    (folder / "notes.txt").write_text("mine")
    with_row(monkeypatch, "gpt2", compare=differs)
    with pytest.raises(ExportDiffers, match=f"nothing is left in {folder}"):
        export(folder, model, Bytes(), written_as="gpt2", source=SOURCE)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "config.json").exists()


def test_a_folder_of_somebody_s_files_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadValue, match="is not empty"):
        export(tmp_path, shaken(**SHAPE), Bytes(), written_as="gpt2", source=SOURCE)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_where_their_program_cannot_be_asked_the_export_stays_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise NotChecked("theirs takes longer than 30 minutes")

    with_row(monkeypatch, "gpt2", compare=cannot)
    told = export(tmp_path / "out", shaken(**SHAPE), Bytes(), written_as="gpt2", source=SOURCE)
    assert told == "written, not checked: theirs takes longer than 30 minutes"
    assert (tmp_path / "out" / "config.json").is_file()
