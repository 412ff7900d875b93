"""The manifest of a checkpoint folder: a JSON list of its files, checked before any of them is used.

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

from fewshot.base.config import cast, from_plain, to_plain
from fewshot.base.errors import BadFile, DamagedCheckpoint, FewshotError
from fewshot.base.files import read_json, sha256_file, write_json
from fewshot.checkpoint.folder import checkpoint_name
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
    weights: str = ""  # sha256 of the weights' file, by which models are told apart
    counters: Mapping[str, Any] = field(default_factory=dict)  # plain values that training needs to go on


def write_manifest(folder: Path, *, step: int, config: GPTConfig, counters: Mapping[str, Any]) -> None:
    """Write the manifest of the files that are in `folder` now."""
    files = {
        file.name: {"sha256": sha256_file(file), "size_bytes": file.stat().st_size} for file in sorted(folder.iterdir())
    }
    plain = {"format": FORMAT, "step": step, "model": to_plain(config), "counters": dict(counters), "files": files}
    write_json(folder / MANIFEST, plain)


def read_manifest(folder: Path) -> Checkpoint:
    """Return the checkpoint in `folder` if the sha256 of every file agrees; else raise `DamagedCheckpoint`."""
    way_out = f"delete {folder} to use the checkpoint before it"
    try:
        checkpoint, files = _parse(folder)
    except FewshotError as error:
        named = str(error) if str(folder) in str(error) else f"{folder / MANIFEST}: {error}"
        raise DamagedCheckpoint(f"{named}; {way_out}") from None
    for name, sha256 in files.items():
        file = folder / name
        if not file.is_file():
            raise DamagedCheckpoint(f"{file} is missing; {way_out}")
        if sha256_file(file) != sha256:
            raise DamagedCheckpoint(f"{file} is damaged: its sha256 is not the recorded one; {way_out}")
    return checkpoint


def is_as_written(folder: Path) -> bool:
    """Return whether `folder` is a checkpoint with the name and files that it was written with.

    The content of the files is not read.
    """
    try:
        checkpoint, files = _parse(folder)
    except FewshotError:
        return False
    is_ours = not folder.is_symlink() and folder.name == checkpoint_name(checkpoint.step)
    return is_ours and {file.name for file in folder.iterdir()} == {MANIFEST, *files}


def _parse(folder: Path) -> tuple[Checkpoint, dict[str, str]]:
    """Return the checkpoint by its manifest, and the sha256 of every file; unusable values raise `BadFile`."""
    where = folder / MANIFEST
    plain = read_json(where)
    if not isinstance(plain, dict) or plain.get("format") != FORMAT or not plain.keys() >= KEYS:
        raise BadFile(f"{where} is not a manifest of format {FORMAT}")
    step = cast(plain["step"], int, f"{where}: step")
    counters = cast(plain["counters"], dict[str, Any], f"{where}: counters")
    files = {
        name: cast(cast(recorded, dict[str, Any], f"{where}: {name}").get("sha256"), str, f"{where}: sha256 of {name}")
        for name, recorded in cast(plain["files"], dict[str, Any], f"{where}: files").items()
    }
    if step < 0 or WEIGHTS not in files or any(not name or name != Path(name).name for name in files):
        raise BadFile(f"{where} does not list the files of a checkpoint: {', '.join(files) or 'none'}, step {step}")
    config = from_plain(GPTConfig, plain["model"], where=str(where))
    return Checkpoint(path=folder, step=step, config=config, weights=files[WEIGHTS], counters=counters), files
