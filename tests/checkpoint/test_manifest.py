from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import DamagedCheckpoint
from fewshot.checkpoint.folder import MANIFEST
from fewshot.checkpoint.manifest import (
    WEIGHTS,
    is_as_written,
    part_name,
    parts_of,
    read_manifest,
    weights_digest,
    write_manifest,
)
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
    del plain["sha256"]
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


def test_any_byte_of_the_manifest_that_changes_is_noticed(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    assert read_manifest(folder).step == 7
    rng = random.Random(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= rng.randrange(1, 256)
        (folder / MANIFEST).write_bytes(changed)
        with pytest.raises(DamagedCheckpoint, match=re.escape(str(folder / MANIFEST))):
            read_manifest(folder)
        (folder / MANIFEST).write_bytes(content[:place])
        with pytest.raises(DamagedCheckpoint, match=re.escape(str(folder / MANIFEST))):
            read_manifest(folder)


def test_weights_in_parts_are_known_by_all_their_files_in_any_order() -> None:
    one_file = {"model.safetensors": "ab", "training.safetensors": "cd"}
    assert weights_digest(one_file) == "ab"
    parts = {"model-00001-of-00002.safetensors": "ab", "model-00002-of-00002.safetensors": "ef"}
    exchanged = dict(zip(parts, reversed(parts.values()), strict=True))
    digest = hashlib.sha256(b"ab\nef").hexdigest()
    assert weights_digest(parts) == weights_digest({**exchanged, "training.safetensors": "cd"}) == digest
    assert weights_digest({**parts, "model-00002-of-00002.safetensors": "e0"}) != digest


def test_the_parts_of_a_file_are_known_by_their_names() -> None:
    parts = [part_name(WEIGHTS, number, 3) for number in range(3)]
    assert parts == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert part_name(WEIGHTS, 0, 1) == WEIGHTS
    others = [
        "training-00001-of-00003.safetensors",
        "model-1-of-3.safetensors",
        "model.safetensors.old",
        "xmodel.safetensors",
    ]
    assert parts_of(WEIGHTS, [*others, *reversed(parts), WEIGHTS]) == [*parts, WEIGHTS]


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
    assert error.endswith("; put back another copy of it")  # it lies in no run
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
    del plain["sha256"]  # so that it is the value that is refused
    (folder / MANIFEST).write_text(json.dumps(plain))
    read_manifest(folder)
    (folder / MANIFEST).write_text(json.dumps(WRONG_KINDS[what](plain)))
    with pytest.raises(DamagedCheckpoint) as caught:
        read_manifest(folder)
    assert "manifest.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not is_as_written(folder)
