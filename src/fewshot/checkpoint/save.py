"""Checkpoints are written whole or not at all, with finite numbers only, and all but the newest are deleted.

In: the pieces that each process holds. Out: one folder, which the rename at the end makes a checkpoint. Of several
processes each writes and hashes a file of its own; what goes wrong on one of them is raised on all.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fewshot.base.dist import ALONE, Processes
from fewshot.base.errors import BadFile, NotFinite, check
from fewshot.base.files import usual_mode, written_whole
from fewshot.base.tensors import extremes, first_not_finite
from fewshot.checkpoint.folder import RunFolder, step_of
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, describe, is_as_written, part_name, write_manifest
from fewshot.checkpoint.pieces import Piece, n_elements, whole_pieces
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

Content = Mapping[str, Sequence[Piece]]  # the pieces of a process, by the file that they belong to: WEIGHTS, TRAINING


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; a full disk, or another refusal of the system, raises `OSError`."""
    ready = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, path, metadata=dict(metadata or {"format": "pt"}))
        path.chmod(usual_mode())  # the library's files can be read by their owner alone
    except SafetensorError as error:
        system = re.search(r"os error (\d+)", str(error))  # all that the library says of what went wrong
        if system is None:
            raise
        raise OSError(int(system[1]), os.strerror(int(system[1])), str(path)) from None


def save(
    run: Path,
    model: GPT,
    *,
    step: int,
    counters: Mapping[str, Any] | None = None,
    training: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint `run/checkpoints/step-N` of one process and return its folder; the caller holds the run.

    A crash or a full disk at any moment leaves the older checkpoints as they were; what a killed process left half
    written is removed by the next save. Weights or moments that are not finite raise `NotFinite`: nothing is written.
    """
    content = {WEIGHTS: whole_pieces(model.state_dict())}
    if training is not None:
        content[TRAINING] = whole_pieces(training)
    check_content(content)
    return write_checkpoint(run, content, step=step, config=model.config, counters=counters or {})


def check_content(content: Content, *, processes: Processes = ALONE) -> None:
    """Raise `NotFinite`, on all processes, if a piece on any of them holds a NaN or an infinity."""
    pieces = {piece.name: piece.tensor for held in content.values() for piece in held}
    processes.together(lambda: check_finite(pieces))


def share_of(content: Content, *, processes: Processes = ALONE) -> dict[str, list[Piece]]:
    """Return what this process writes: of pieces that several hold, each is written by one of them.

    By that which has the fewest bytes to write so far. Every process must call it.
    """
    held = {(file, piece.key): piece for file, pieces in content.items() for piece in pieces if piece.tensor.numel()}
    table = {key: (piece.name, piece.shape, piece.ranges, piece.tensor.nbytes) for key, piece in held.items()}
    tables = processes.exchange(table)
    every = {key: row for other in tables for key, row in other.items()}
    stored: dict[tuple[str, str], int] = {}
    for (file, _), (name, _, ranges, _) in every.items():
        stored[file, name] = stored.get((file, name), 0) + n_elements(ranges)
    for (file, _), (name, shape, _, _) in every.items():
        assert stored[file, name] == math.prod(shape), f"{name} of shape {shape}: {stored[file, name]} elements held"
    n_bytes, share = [0] * len(tables), {file: list[Piece]() for file in content}
    for key, (_, _, _, size) in sorted(every.items(), key=lambda item: (-item[1][-1], item[0])):
        writer = min((number for number, other in enumerate(tables) if key in other), key=lambda n: (n_bytes[n], n))
        n_bytes[writer] += size
        if writer == processes.rank:
            share[key[0]].append(held[key])
    return share


def write_checkpoint(
    run: Path,
    share: Content,
    *,
    step: int,
    config: GPTConfig,
    counters: Mapping[str, Any],
    processes: Processes = ALONE,
    check_stop: Callable[[], None] = lambda: None,
) -> Path:
    """Write the checkpoint `run/checkpoints/step-N` of all processes' shares and return its folder.

    Every process must call it, with the same `step`, into a folder that all of them see. An `OSError` on one of them,
    or what `check_stop` raises between files, is raised on all: no part of the checkpoint stays.
    """
    path, is_first = RunFolder(run).checkpoint(step), processes.rank == 0
    with contextlib.ExitStack() as stack:

        def begin() -> str:
            for litter in path.parent.glob(".step-*.partial"):
                shutil.rmtree(litter)
            partial = stack.enter_context(written_whole(path))
            partial.mkdir()
            return str(partial)

        def write() -> dict[str, Any]:
            if not Path(partial).is_dir():
                raise BadFile(
                    f"process {processes.rank} does not see {run}: a run lies on a disk that all processes share"
                )
            return _write_files(Path(partial), share, processes, check_stop)

        def commit() -> None:
            files = {name: recorded for part in written for name, recorded in part.items()}
            write_manifest(Path(partial), step=step, config=config, counters=counters, files=files)
            check_stop()
            stack.close()  # the rename: from here on it is a checkpoint

        partial = processes.together(lambda: begin() if is_first else "")[0]
        written = processes.together(write)
        processes.together(lambda: commit() if is_first else None)
    return path


def _write_files(folder: Path, share: Content, processes: Processes, check_stop: Callable[[], None]) -> dict[str, Any]:
    """Write the files of this process and return what the manifest records of each."""
    recorded = {}
    for file, pieces in share.items():
        check_stop()
        if pieces or processes.n_ranks == 1:  # of several processes, some may have nothing to write
            path = folder / part_name(file, processes.rank, processes.n_ranks)
            write_tensors(path, {piece.key: piece.tensor for piece in pieces})
            recorded[path.name] = describe(path)
            with path.open("rb+") as written:  # on this machine, which may be another than the one that renames
                os.fsync(written.fileno())
    return recorded


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise `NotFinite` with the name and the range of the first tensor that holds a NaN or an infinity."""
    name = first_not_finite(tensors)
    if name is not None:
        least, most = extremes(tensors[name])
        raise NotFinite(f"{name} is not finite: it goes from {least.item():g} to {most.item():g}")


def prune(run: Path, *, keep: int, newest: int | None = None) -> None:
    """Delete all but the newest `keep` of the checkpoints that the program wrote; everything else there stays.

    With `newest`, the step of a checkpoint that is known to be whole, later ones do not count and stay: a run that goes
    on from before them, because one is damaged, has not come to them again.
    """
    check(keep >= 1, f"checkpoints to keep is {keep}, must be at least 1")
    folders = [folder for folder in RunFolder(run).checkpoint_folders() if is_as_written(folder)]
    for old in [folder for folder in folders if newest is None or (step_of(folder.name) or 0) <= newest][:-keep]:
        discard(old)


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint; a kill half way leaves no part of it under its name."""
    litter = checkpoint.with_name(f".{checkpoint.name}.old.partial")
    checkpoint.replace(litter)
    shutil.rmtree(litter)
