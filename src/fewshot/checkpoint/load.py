"""Runs and checkpoints in, models out; a file is used only if its sha256 agrees with the manifest."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fewshot.base.errors import BadFile, DamagedCheckpoint
from fewshot.base.files import read_json, sha256_file
from fewshot.checkpoint.folder import RunFolder, step_of
from fewshot.checkpoint.manifest import MANIFEST, TRAINING, WEIGHTS, Checkpoint, read_manifest
from fewshot.kernels import sdpa
from fewshot.kernels.choose import choose_for
from fewshot.kernels.interface import Attend
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.machine import machine_device, requirements_of
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer


def load_run(folder: Path, *, attend: Attend | None = None) -> tuple[GPT, Tokenizer, Checkpoint]:
    """Return the newest model of a run (or the one of a checkpoint folder inside it), its tokenizer and its checkpoint.

    Attention is computed by `attend`, or by the kernel that is fastest here for a model that is only read from.
    """
    checkpoint = find_checkpoint(folder)
    file = _tokenizer_file(folder)
    tokenizer = load_tokenizer(file)
    _check_made_the_tokens(file, tokenizer)
    if tokenizer.n_vocab > checkpoint.config.n_vocab:
        raise BadFile(
            f"{folder}: its {file.name} has {tokenizer.n_vocab:,} entries, but the model only knows "
            f"{checkpoint.config.n_vocab:,}: put back the tokenizer that it was trained with"
        )
    attend = attend or _kernel(checkpoint.config)
    return load_model(checkpoint, attend=attend, device=machine_device()), tokenizer, checkpoint


def find_checkpoint(path: Path) -> Checkpoint:
    """Return the verified checkpoint at `path`: a checkpoint folder, or a run folder, whose newest one is meant."""
    if not path.exists():
        raise BadFile(f"{path} does not exist; a run folder (made by fewshot train) is needed")
    if (path / MANIFEST).is_file():
        return read_manifest(path)
    run = RunFolder(path)
    checkpoints = run.checkpoint_folders()
    if not checkpoints and run.config.is_file() and not run.checkpoints.is_dir():
        raise DamagedCheckpoint(f"{path} holds no checkpoint yet: its training goes on with 'fewshot resume {path}'")
    if not checkpoints:
        others = sorted(other.name for other in run.checkpoints.glob("[!.]*"))
        held = f"; it holds {', '.join(others[:3])}, of which none is named step-N with eight digits" if others else ""
        raise DamagedCheckpoint(f"{path} holds no checkpoint (looked for {run.checkpoints}/step-*){held}")
    newest = read_manifest(checkpoints[-1])
    if newest.step != step_of(newest.path.name):
        raise DamagedCheckpoint(
            f"{newest.path} holds step {newest.step:,}, not the step in its name: rename it, or move it away"
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
        raise BadFile(f"{checkpoint.path} holds weights only: it can generate text, but its training cannot be resumed")
    return read_tensors(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; one that cannot be read as such raises `DamagedCheckpoint`."""
    try:
        return load_file(path)
    except (SafetensorError, UnicodeError) as error:
        raise DamagedCheckpoint(f"{os.fsencode(path).decode(errors='replace')} cannot be read: {error}") from None


def _tokenizer_file(folder: Path) -> Path:
    """Return the tokenizer of a run, or of the run that a checkpoint is in; never one of another folder above."""
    runs = [RunFolder.of_checkpoint(path) for path in (folder.absolute(), folder.resolve())]
    for run in (RunFolder(folder), *filter(None, runs)):
        if run.tokenizer.is_file():
            return run.tokenizer
    raise BadFile(f"{folder} has no {RunFolder(folder).tokenizer.name}: a run folder made by fewshot train is needed")


def _check_made_the_tokens(file: Path, tokenizer: Tokenizer) -> None:
    """Raise `BadFile` if the tokens of the run, where they are still there, were made by another tokenizer."""
    made_by = {name for index in RunFolder(file.parent).data.glob("*.json") for name in _makers(index)}
    if made_by and not made_by & {tokenizer.fingerprint, sha256_file(file)}:
        raise BadFile(f"{file} is not the tokenizer that the run was trained with: put that one back")


def _makers(index: Path) -> set[str]:
    """Return the tokenizers' fingerprints in an index of tokens; none if it is damaged, which `load_tokens` reports."""
    try:
        return {shard["tokenizer"] for shard in read_json(index)["shards"]}
    except (BadFile, OSError, KeyError, TypeError):
        return set()


def _kernel(config: GPTConfig) -> Attend:
    """Return the kernels that suit each pattern of a model that is only read from."""
    requirements = requirements_of(config, device=machine_device(), dtype=torch.float32, training=False)
    return choose_for(config.patterns, "auto", requirements).attend
