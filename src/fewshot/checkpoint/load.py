"""Runs and checkpoints in, models out; a file is used only if its sha256 agrees with the manifest.

Of a run whose newest checkpoint is damaged the newest whole one is used, which a line tells.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fewshot.base.dist import ALONE, Processes
from fewshot.base.errors import BadFile, DamagedCheckpoint
from fewshot.base.files import read_json, sha256_file
from fewshot.base.log import note
from fewshot.checkpoint.folder import MANIFEST, RunFolder, step_of
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, Checkpoint, parts_of, read_manifest, verify
from fewshot.checkpoint.pieces import whole_pieces
from fewshot.checkpoint.reader import PieceReader
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
    file = tokenizer_file(folder)
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
    """Return the verified checkpoint at `path`: a checkpoint folder, or a run folder, whose newest whole one is meant.

    Damage of a checkpoint that was named itself raises `DamagedCheckpoint`.
    """
    if not path.exists():
        raise BadFile(f"{path} does not exist; a run folder (made by fewshot train) is needed")
    if (path / MANIFEST).is_file():
        return read_manifest(path)
    checkpoint, damage = newest_whole(RunFolder(path))
    if damage:
        note(f"{damage}; using step {checkpoint.step:,}")
    return checkpoint


def newest_whole(run: RunFolder, *, before: int | None = None, processes: Processes = ALONE) -> tuple[Checkpoint, str]:
    """Return the newest checkpoint of a run whose files are all whole, and what is wrong with the newer ones, if any.

    With `before`, those of this step and later are passed over. Damaged ones are left where they are. A run without a
    whole checkpoint raises `DamagedCheckpoint`. Of several processes each must call this, and reads a share of the
    files.
    """
    checkpoints, path, damage = run.checkpoint_folders(), run.path, list[str]()
    for folder in reversed(checkpoints):
        if before is not None and (step_of(folder.name) or 0) >= before:
            continue
        try:
            checkpoint = verify(folder, processes=processes)
        except DamagedCheckpoint as error:
            damage.append(str(error))
            continue
        if checkpoint.step == step_of(folder.name):
            return checkpoint, "; ".join(damage)
        damage.append(f"{folder} holds step {checkpoint.step:,}, not the step in its name")
    if damage:
        raise DamagedCheckpoint(f"{path} holds no checkpoint that is whole: {'; '.join(damage)}")
    if run.config.is_file() and not run.checkpoints.is_dir():
        raise DamagedCheckpoint(f"{path} holds no checkpoint yet: its training goes on with 'fewshot resume {path}'")
    others = sorted(other.name for other in run.checkpoints.glob("[!.]*"))
    wanted = f"a folder named step-N with eight digits, and {MANIFEST} in it"
    held = f"; it holds {', '.join(others[:3])}, of which none is {wanted}" if others else ""
    raise DamagedCheckpoint(f"{path} holds no checkpoint (looked for {run.checkpoints}/step-*){held}{run.runs_inside}")


def load_model(checkpoint: Checkpoint, *, attend: Attend = sdpa.attend, device: str = "cpu") -> GPT:
    """Return the model with its weights, in evaluation mode; weights of another shape raise `DamagedCheckpoint`.

    The checkpoint may have been written by any number of processes.
    """
    config, reader = checkpoint.config, PieceReader(checkpoint, WEIGHTS)
    try:
        n_layers = len({name.split(".")[1] for name in reader.shapes if name.startswith("h.")})
        if n_layers != config.n_layers:  # before that many are made
            raise DamagedCheckpoint(f"they have {n_layers} layers, not {config.n_layers}")
        model = GPT(config, attend=attend)
        pieces = whole_pieces(model.state_dict())
        if unknown := sorted(reader.shapes.keys() - {piece.name for piece in pieces}):
            raise DamagedCheckpoint(f"it has no {', '.join(unknown[:3])}")
        reader.fill(pieces)
    except DamagedCheckpoint as error:
        reason = str(error).removeprefix(f"{checkpoint.path}: ")
        raise DamagedCheckpoint(
            f"{checkpoint.path}: the weights do not fit the model in {MANIFEST}: {reason}"
        ) from None
    return model.to(torch.device(device)).eval()


def load_training(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the optimizer's tensors, whole; a converted model has none and raises `BadFile`."""
    return open_training(checkpoint).tensors()


def open_training(checkpoint: Checkpoint) -> PieceReader:
    """Return the reader of the optimizer's tensors; a converted model has none and raises `BadFile`."""
    if not parts_of(TRAINING, checkpoint.files):
        raise BadFile(f"{checkpoint.path} holds weights only: it can generate text, but its training cannot be resumed")
    return PieceReader(checkpoint, TRAINING)


def tokenizer_file(folder: Path) -> Path:
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
