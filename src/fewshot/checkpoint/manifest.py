"""What a checkpoint folder holds, written beside it as JSON and checked before anything is used.

checkpoints/step-00002000/
    manifest.json            this: step, model shape, training counters, sha256 and size of every file
    model.safetensors        weights
    training.safetensors     optimizer moments; absent in a converted model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadFile, DamagedCheckpoint
from fewshot.base.files import read_json, sha256_file, write_json
from fewshot.model.config import GPTConfig

MANIFEST, WEIGHTS, TRAINING = "manifest.json", "model.safetensors", "training.safetensors"
FORMAT = 1
KEYS = {"format", "step", "model", "counters", "files"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk: where it is, what model it holds and how far training had come."""

    path: Path
    step: int
    config: GPTConfig
    weights: str = ""  # sha256 of the weights' file: what tells one model from another
    counters: Mapping[str, Any] = field(default_factory=dict)  # plain values that training needs to go on


def write_manifest(folder: Path, *, step: int, config: GPTConfig, counters: Mapping[str, Any]) -> None:
    """Record every file that lies in `folder` now."""
    files = {
        file.name: {"sha256": sha256_file(file), "size_bytes": file.stat().st_size} for file in sorted(folder.iterdir())
    }
    plain = {"format": FORMAT, "step": step, "model": to_plain(config), "counters": dict(counters), "files": files}
    write_json(folder / MANIFEST, plain)


def read_manifest(folder: Path) -> Checkpoint:
    """The checkpoint in `folder` after every file was found and its sha256 agreed; else `DamagedCheckpoint`."""
    way_out = f"delete {folder} to use the checkpoint before it"
    try:
        plain = read_json(folder / MANIFEST)
    except BadFile as error:
        raise DamagedCheckpoint(f"{error}; {way_out}") from None
    if (
        not isinstance(plain, dict)
        or plain.get("format") != FORMAT
        or not plain.keys() >= KEYS
        or not isinstance(plain["files"], dict)
    ):
        raise DamagedCheckpoint(f"{folder / MANIFEST} is not a manifest of format {FORMAT}; {way_out}")
    for name, recorded in plain["files"].items():
        file = folder / name
        if not file.is_file():
            raise DamagedCheckpoint(f"{file} is missing; {way_out}")
        if sha256_file(file) != recorded["sha256"]:
            raise DamagedCheckpoint(f"{file} is damaged: its sha256 is not the recorded one; {way_out}")
    config = from_plain(GPTConfig, plain["model"], where=str(folder / MANIFEST))
    weights = plain["files"].get(WEIGHTS, {}).get("sha256", "")
    return Checkpoint(path=folder, step=plain["step"], config=config, weights=weights, counters=plain["counters"])
