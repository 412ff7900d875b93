"""Checkpoints are written whole or not at all, with finite numbers only, and all but the newest are deleted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fewshot.base.errors import NotFinite, check
from fewshot.base.files import usual_mode, written_whole
from fewshot.base.tensors import extremes, first_not_finite
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, is_as_written, write_manifest
from fewshot.model.gpt import GPT


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
    """Write the checkpoint `run/checkpoints/step-N` and return its folder; the caller holds the run.

    A crash or a full disk at any moment leaves the older checkpoints as they were; what a killed process left half
    written is removed by the next save. Weights or moments that are not finite raise `NotFinite`: nothing is written.
    """
    check_finite(model.state_dict())
    check_finite(training or {})
    path = RunFolder(run).checkpoint(step)
    for litter in path.parent.glob(".step-*.partial"):
        shutil.rmtree(litter)
    with written_whole(path) as partial:
        partial.mkdir()
        write_tensors(partial / WEIGHTS, model.state_dict())
        if training is not None:
            write_tensors(partial / TRAINING, training)
        write_manifest(partial, step=step, config=model.config, counters=counters or {})
    return path


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise `NotFinite` with the name and the range of the first tensor that holds a NaN or an infinity."""
    name = first_not_finite(tensors)
    if name is not None:
        least, most = extremes(tensors[name])
        raise NotFinite(f"{name} is not finite: it goes from {least.item():g} to {most.item():g}")


def prune(run: Path, *, keep: int) -> None:
    """Delete all but the newest `keep` of the checkpoints that the program wrote; everything else there stays."""
    check(keep >= 1, f"checkpoints to keep is {keep}, must be at least 1")
    for old in [folder for folder in RunFolder(run).checkpoint_folders() if is_as_written(folder)][:-keep]:
        discard(old)


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint; a kill half way leaves no part of it under its name."""
    litter = checkpoint.with_name(f".{checkpoint.name}.old.partial")
    checkpoint.replace(litter)
    shutil.rmtree(litter)
