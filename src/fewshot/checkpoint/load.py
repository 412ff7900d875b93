"""Checkpoints come back only after their sha256 agreed."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fewshot.base.errors import BadFile, DamagedCheckpoint
from fewshot.checkpoint.folder import CONFIG, FOLDER, checkpoint_folders, step_of
from fewshot.checkpoint.manifest import MANIFEST, TRAINING, WEIGHTS, Checkpoint, read_manifest
from fewshot.kernels import sdpa
from fewshot.kernels.interface import Attend
from fewshot.model.gpt import GPT


def find_checkpoint(path: Path) -> Checkpoint:
    """Return the verified checkpoint at `path`: a checkpoint folder, or a run folder, whose newest one is meant."""
    if not path.exists():
        raise BadFile(f"{path} does not exist; a run folder (made by fewshot train) is needed")
    if (path / MANIFEST).is_file():
        return read_manifest(path)
    found = checkpoint_folders(path)
    if not found and (path / CONFIG).is_file() and not (path / FOLDER).is_dir():
        raise DamagedCheckpoint(f"{path} holds no checkpoint yet: its training goes on with 'fewshot resume {path}'")
    if not found:
        others = sorted(other.name for other in (path / FOLDER).glob("[!.]*"))
        held = f"; it holds {', '.join(others[:3])}, of which none is named step-N with eight digits" if others else ""
        raise DamagedCheckpoint(f"{path} holds no checkpoint (looked for {path / FOLDER}/step-*){held}")
    newest = read_manifest(found[-1])
    if newest.step != step_of(newest.path.name):
        raise DamagedCheckpoint(
            f"{newest.path} holds step {newest.step:,}, not that of its name: rename it, or move it away"
        )
    return newest


def load_model(checkpoint: Checkpoint, *, attend: Attend = sdpa.attend, device: str = "cpu") -> GPT:
    """Return the model with its weights, in evaluation mode; weights of another shape raise `DamagedCheckpoint`."""
    config, weights = checkpoint.config, read_tensors(checkpoint.path / WEIGHTS)
    n_layers = len({name.split(".")[1] for name in weights if name.startswith("h.")})
    try:
        if n_layers != config.n_layers:  # before that many are made
            raise RuntimeError(f"they have {n_layers} layers, not {config.n_layers}")
        model = GPT(config, attend=attend)
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedCheckpoint(
            f"{checkpoint.path}: the weights do not fit the model in {MANIFEST}: {reason}"
        ) from None
    return model.to(torch.device(device)).eval()


def load_training(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the optimizer's tensors; a converted model has none and raises `BadFile`."""
    path = checkpoint.path / TRAINING
    if not path.is_file():
        raise BadFile(f"{checkpoint.path} holds weights only: it can be generated from, not resumed")
    return read_tensors(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; one that cannot be read as such raises `DamagedCheckpoint`."""
    try:
        return load_file(path)
    except (SafetensorError, UnicodeError) as error:
        raise DamagedCheckpoint(f"{os.fsencode(path).decode(errors='replace')} cannot be read: {error}") from None
