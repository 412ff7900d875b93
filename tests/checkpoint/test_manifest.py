from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import DamagedCheckpoint
from fewshot.checkpoint.manifest import MANIFEST, is_as_written, read_manifest, write_manifest
from fewshot.model.config import GPTConfig

CONFIG = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11, pattern="alternate(dense, banded(4))")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "training.safetensors").write_bytes(b"moments")
    write_manifest(tmp_path, step=7, config=CONFIG, counters={"rows": 3, "seconds": 1.5})
    return tmp_path


def test_a_manifest_gives_back_what_was_recorded(folder: Path) -> None:
    checkpoint = read_manifest(folder)
    assert (checkpoint.path, checkpoint.step, checkpoint.config) == (folder, 7, CONFIG)
    assert checkpoint.counters == {"rows": 3, "seconds": 1.5}


def test_a_manifest_written_before_the_sparse_transformer_still_loads(folder: Path) -> None:
    plain = json.loads((folder / MANIFEST).read_text())
    plain["model"] = {
        "n_layers": 2, "d_model": 12, "n_heads": 3, "n_ctx": 7, "n_vocab": 11, "d_head": None, "d_ff": None,
        "pattern": "dense", "block": "pre-ln", "tied": True, "dropout": 0.0, "init_std": 0.02,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(plain))
    config = read_manifest(folder).config
    assert config == GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11, init_std=0.02)
    assert (config.positions, config.qk_width, config.matrix_std) == ("learned", 4, 0.02)


def test_every_file_is_recorded_with_its_sha256_and_size(folder: Path) -> None:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert files == {
        "model.safetensors": {"sha256": hashlib.sha256(b"weights").hexdigest(), "size_bytes": 7},
        "training.safetensors": {"sha256": hashlib.sha256(b"moments").hexdigest(), "size_bytes": 7},
    }


def damage(file: Path, data: bytes | None) -> None:
    file.unlink()
    if data is not None:
        file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("training.safetensors", b"momentz", "training.safetensors is damaged: its sha256 is not the recorded one"),
        ("training.safetensors", b"mom", "training.safetensors is damaged: its sha256 is not the recorded one"),
        ("model.safetensors", None, "model.safetensors is missing"),
        (MANIFEST, None, "manifest.json does not exist"),
        (MANIFEST, b'{"format": 1, "st', "manifest.json is not JSON"),
        (MANIFEST, b"\0\0\0", "manifest.json is a binary file"),
        (MANIFEST, b"[]", "manifest.json is not a manifest of format 1"),
        (MANIFEST, b'{"format": 2}', "manifest.json is not a manifest of format 1"),
        (MANIFEST, b'{"format": 1, "files": {}}', "manifest.json is not a manifest of format 1"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_a_way_out(
    folder: Path, name: str, data: bytes | None, message: str
) -> None:
    damage(folder / name, data)
    with pytest.raises(DamagedCheckpoint) as caught:
        read_manifest(folder)
    error: Any = str(caught.value)
    assert error.startswith(f"{folder}/{message}")
    assert error.endswith(f"; delete {folder} to use the checkpoint before it")
    assert "\n" not in error


def change(**changed: Any) -> Any:
    return lambda plain: plain | changed


def change_model(**changed: Any) -> Any:
    return lambda plain: plain | {"model": plain["model"] | changed}


def change_file(recorded: Any, name: str = "model.safetensors") -> Any:
    return lambda plain: plain | {"files": plain["files"] | {name: recorded}}


WRONG_KINDS = {
    "step is a list": change(step=[7]),
    "step is nothing": change(step=None),
    "step is true": change(step=True),
    "step is a word": change(step="seven"),
    "step is no number": change(step=float("nan")),
    "step is endless": change(step=float("inf")),
    "step is negative": change(step=-7),
    "step is half": change(step=7.5),
    "counters are a list": change(counters=["rows"]),
    "counters are nothing": change(counters=None),
    "files are a list": change(files=["model.safetensors"]),
    "there are no files": change(files={}),
    "a file is a word": change_file("sha256"),
    "a file is nothing": change_file(None),
    "a file has no sha256": change_file({"size_bytes": 7}),
    "a sha256 is a list": change_file({"sha256": []}),
    "a file lies elsewhere": change_file({"sha256": "0"}, "../model.safetensors"),
    "a file is anywhere": change_file({"sha256": "0"}, "/etc/hosts"),
    "a file has no name": change_file({"sha256": "0"}, ""),
    "model is a word": change(model="gpt2"),
    "model is nothing": change(model=None),
    "model is a list": change(model=[1]),
    "a size is a word": change_model(n_layers="two"),
    "a size is a list": change_model(d_model=[12]),
    "a size is 0": change_model(n_heads=0),
    "a size is missing": lambda plain: plain | {"model": {"n_layers": 2}},
    "a size is of another program": change_model(n_experts=8),
    "heads do not fit": change_model(n_heads=5),
    "the pattern is unknown": change_model(pattern="spiral"),
    "the pattern is a number": change_model(pattern=3),
    "format is a list": change(format=[1]),
}


@pytest.mark.parametrize("what", WRONG_KINDS)
def test_a_value_of_another_kind_is_damage_and_one_line(folder: Path, what: str) -> None:
    plain = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(WRONG_KINDS[what](plain)))
    with pytest.raises(DamagedCheckpoint) as caught:
        read_manifest(folder)
    assert "manifest.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not is_as_written(folder)
