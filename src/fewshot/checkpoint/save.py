"""Checkpoints are written whole or not at all, and only the last few are kept."""

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

from fewshot.base.errors import check
from fewshot.base.files import written_whole
from fewshot.checkpoint.folder import FOLDER, folder_of
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, write_manifest
from fewshot.model.gpt import GPT


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; a full disk, or anything else that the system refuses, raises `OSError`."""
    ready = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, path, metadata={"format": "pt"})
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
    keep: int = 2,
) -> Path:
    """Write `run/checkpoints/step-N` and delete all but the newest `keep`; gives the new folder.

    A crash or a full disk at any moment leaves the older checkpoints as they were; what a killed process left half
    written is removed by the next save.
    """
    check(keep >= 1, f"checkpoints to keep is {keep}, must be at least 1")
    path = run / FOLDER / folder_of(step)
    for litter in path.parent.glob(".step-*.partial"):
        shutil.rmtree(litter)
    with written_whole(path) as partial:
        partial.mkdir()
        write_tensors(partial / WEIGHTS, model.state_dict())
        if training is not None:
            write_tensors(partial / TRAINING, training)
        write_manifest(partial, step=step, config=model.config, counters=counters or {})
    for old in sorted(path.parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return path
