"""The manifest of a checkpoint folder: a JSON list of its files, checked before any of them is used.

checkpoints/step-00002000/
    manifest.json            this: step, model shape, training counters, sha256 and size of every file, its own sha256
    model.safetensors        weights
    training.safetensors     optimizer moments; absent in a converted model

Of several processes each writes what it holds: model-00001-of-00004.safetensors and so on, and a process that holds
nothing writes no file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot.base.config import cast, from_plain, to_plain
from fewshot.base.dist import ALONE, Processes
from fewshot.base.errors import BadFile, DamagedCheckpoint, FewshotError
from fewshot.base.files import decode_text, parse_json, read_bytes, sha256_file, to_json, write_text
from fewshot.checkpoint.folder import MANIFEST, RunFolder, checkpoint_name
from fewshot.model.config import GPTConfig

WEIGHTS, TRAINING = "model.safetensors", "training.safetensors"
FORMAT = 1
KEYS = {"format", "step", "model", "counters", "files"}
OWN = "sha256"  # the manifest's own: of the file's bytes with zeros in the place of these 64 digits
BLANK = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk: where it is, what model it holds and how far training had come."""

    path: Path
    step: int
    config: GPTConfig
    weights: str = ""  # sha256 by which models are told apart, see `weights_digest`
    counters: Mapping[str, Any] = field(default_factory=dict)  # plain values that training needs to go on
    files: Mapping[str, str] = field(default_factory=dict)  # sha256 of every file


def part_name(file: str, number: int, n_parts: int) -> str:
    """Return the name of a process's part of `file`, WEIGHTS or TRAINING; a single process writes all of it."""
    return file if n_parts == 1 else file.replace(".", f"-{number + 1:05d}-of-{n_parts:05d}.")


def parts_of(file: str, names: Iterable[str]) -> list[str]:
    """Return those of the names that are parts of `file`, which is WEIGHTS or TRAINING, or all of it; sorted."""
    stem, suffix = file.split(".")
    return sorted(name for name in names if re.fullmatch(rf"{stem}(-\d{{5,}}-of-\d{{5,}})?\.{suffix}", name))


def weights_digest(files: Mapping[str, str]) -> str:
    """Return the sha256 by which models are told apart, of the sha256 of every file.

    That of the weights' file; of weights in parts, that of the sorted list of theirs. So the same weights in another
    layout count as another model: a digest that does not depend on the layout would have to read them all again.
    """
    digests = sorted(files[name] for name in parts_of(WEIGHTS, files))
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def describe(file: Path) -> dict[str, Any]:
    """Return what the manifest records of a file: its sha256, and its size in bytes."""
    return {"sha256": sha256_file(file), "size_bytes": file.stat().st_size}


def write_manifest(
    folder: Path,
    *,
    step: int,
    config: GPTConfig,
    counters: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the manifest of `files`, as `describe` gives them; without them, of those that are in `folder` now."""
    if files is None:
        files = {file.name: describe(file) for file in folder.iterdir() if file.name != MANIFEST}
    plain = {"format": FORMAT, "step": step, "model": to_plain(config), "counters": dict(counters)}
    plain |= {"files": {name: dict(files[name]) for name in sorted(files)}, OWN: BLANK}
    text = to_json(plain, where=folder / MANIFEST, indent=2) + "\n"
    before, _, after = text.rpartition(BLANK)
    write_text(folder / MANIFEST, f"{before}{hashlib.sha256(text.encode()).hexdigest()}{after}")


def read_manifest(folder: Path) -> Checkpoint:
    """Return the checkpoint in `folder` if the sha256 of every file agrees; else raise `DamagedCheckpoint`."""
    try:
        return verify(folder)
    except DamagedCheckpoint as error:
        run = RunFolder.of_checkpoint(folder)
        way_out = f"give {run.path} to use its newest whole checkpoint" if run else "put back another copy of it"
        raise DamagedCheckpoint(f"{error}; {way_out}") from None


def verify(folder: Path, *, processes: Processes = ALONE) -> Checkpoint:
    """Return the checkpoint in `folder`; raise `DamagedCheckpoint`, with the file, if it is not what was written.

    Each of several processes reads a share of the files, and all come to the same result.
    """
    return processes.together(lambda: _verify(folder, processes))[processes.rank]


def _verify(folder: Path, processes: Processes) -> Checkpoint:
    """Return the checkpoint in `folder`, after reading this process's share of its files."""
    try:
        checkpoint = read_unverified(folder)
    except FewshotError as error:
        named = str(error) if str(folder) in str(error) else f"{folder / MANIFEST}: {error}"
        raise DamagedCheckpoint(named) from None
    for name in sorted(checkpoint.files)[processes.rank :: processes.n_ranks]:
        file = folder / name
        if not file.is_file():
            raise DamagedCheckpoint(f"{file} is missing")
        if sha256_file(file) != checkpoint.files[name]:
            raise DamagedCheckpoint(f"{file} is damaged: its sha256 is not the recorded one")
    return checkpoint


def is_as_written(folder: Path) -> bool:
    """Return whether `folder` is a checkpoint with the name and files that it was written with.

    The content of the files is not read.
    """
    try:
        checkpoint = read_unverified(folder)
    except FewshotError:
        return False
    is_ours = not folder.is_symlink() and folder.name == checkpoint_name(checkpoint.step)
    return is_ours and {file.name for file in folder.iterdir()} == {MANIFEST, *checkpoint.files}


def read_unverified(folder: Path) -> Checkpoint:
    """Return the checkpoint in `folder` by its manifest alone; unusable values raise `BadFile`."""
    where = folder / MANIFEST
    content = read_bytes(where)
    plain = parse_json(decode_text(content, where), where)
    if not isinstance(plain, dict) or plain.get("format") != FORMAT or plain.keys() - {OWN} != KEYS:
        raise BadFile(f"{where} is not a manifest of format {FORMAT}")
    if OWN in plain:  # those of older versions have none
        own = cast(plain[OWN], str, f"{where}: {OWN}").encode()
        before, _, after = content.rpartition(own or b"\n")
        if hashlib.sha256(before + BLANK.encode() + after).hexdigest().encode() != own:
            raise BadFile(f"{where} is damaged: its sha256 is not the one at its end")
    step = cast(plain["step"], int, f"{where}: step")
    counters = cast(plain["counters"], dict[str, Any], f"{where}: counters")
    files = {
        name: cast(cast(recorded, dict[str, Any], f"{where}: {name}").get("sha256"), str, f"{where}: sha256 of {name}")
        for name, recorded in cast(plain["files"], dict[str, Any], f"{where}: files").items()
    }
    if step < 0 or not parts_of(WEIGHTS, files) or any(not name or name != Path(name).name for name in files):
        raise BadFile(f"{where} does not list the files of a checkpoint: {', '.join(files) or 'none'}, step {step}")
    config = from_plain(GPTConfig, plain["model"], where=str(where))
    weights = weights_digest(files)
    return Checkpoint(path=folder, step=step, config=config, weights=weights, counters=counters, files=files)
