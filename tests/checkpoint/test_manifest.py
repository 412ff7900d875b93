from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import DamagedCheckpoint
from fewshot.checkpoint.manifest import MANIFEST, read_manifest, write_manifest
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
