"""Checkpoints come back only after their sha256 agreed."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fewshot.base.errors import BadFile, DamagedCheckpoint
from fewshot.checkpoint.folder import FOLDER, checkpoint_folders
from fewshot.checkpoint.manifest import MANIFEST, TRAINING, WEIGHTS, Checkpoint, read_manifest
from fewshot.kernels import sdpa
from fewshot.kernels.need import Attend
from fewshot.model.gpt import GPT


def find_checkpoint(path: Path) -> Checkpoint:
    """The verified checkpoint at `path`: a checkpoint folder, or a run folder, whose newest one is meant."""
    if not path.exists():
        raise BadFile(f"{path} does not exist; a run folder (made by fewshot train) is needed")
    if (path / MANIFEST).is_file():
        return read_manifest(path)
    found = checkpoint_folders(path)
    if not found:
        raise DamagedCheckpoint(f"{path} holds no checkpoint (looked for {path / FOLDER}/step-*)")
    return read_manifest(found[-1])


def load_model(checkpoint: Checkpoint, *, attend: Attend = sdpa.attend, device: str = "cpu") -> GPT:
    """The model with its weights, in evaluation mode."""
    model = GPT(checkpoint.config, attend=attend)
    model.load_state_dict(load_file(checkpoint.path / WEIGHTS))
    return model.to(torch.device(device)).eval()


def load_training(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The optimizer's tensors; a converted model has none and raises `BadFile`."""
    path = checkpoint.path / TRAINING
    if not path.is_file():
        raise BadFile(f"{checkpoint.path} holds weights only: it can be generated from, not resumed")
    return load_file(path)
