"""A run folder becomes a model and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from fewshot.base.errors import BadFile
from fewshot.base.files import read_json, sha256_file
from fewshot.checkpoint.folder import DATA, FOLDER, TOKENIZER
from fewshot.checkpoint.load import find_checkpoint, load_model
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.kernels.choose import choose_for
from fewshot.kernels.interface import Attend
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.machine import machine_device, requirements_of
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer


def load_run(folder: Path, *, attend: Attend | None = None) -> tuple[GPT, Tokenizer, Checkpoint]:
    """Return the newest model of a run (or the one of a checkpoint folder inside it), its tokenizer and its checkpoint.

    Attention is computed by `attend`, or by what is fastest here for a model that is only read from.
    """
    checkpoint = find_checkpoint(folder)
    file = _tokenizer_file(folder)
    tokenizer = load_tokenizer(file)
    _check_is_its_own(file, tokenizer)
    if tokenizer.n_vocab > checkpoint.config.n_vocab:
        raise BadFile(
            f"{folder}: its {TOKENIZER} has {tokenizer.n_vocab:,} entries, but the model only knows "
            f"{checkpoint.config.n_vocab:,}: put back the tokenizer that it was trained with"
        )
    attend = attend or _kernel(checkpoint.config)
    return load_model(checkpoint, attend=attend, device=machine_device()), tokenizer, checkpoint


def _tokenizer_file(folder: Path) -> Path:
    """Return the tokenizer of a run, or of the run that a checkpoint lies in; never one that merely lies above."""
    runs = [path.parents[1] for path in (folder.absolute(), folder.resolve()) if path.parent.name == FOLDER]
    for place in (folder, *runs):
        if (place / TOKENIZER).is_file():
            return place / TOKENIZER
    raise BadFile(f"{folder} has no {TOKENIZER}: a run folder made by fewshot train is needed")


def _check_is_its_own(file: Path, tokenizer: Tokenizer) -> None:
    """Raise `BadFile` if the tokens of the run, where they are still there, were made by another tokenizer."""
    made_by = {name for index in (file.parent / DATA).glob("*.json") for name in _makers(index)}
    if made_by and not made_by & {tokenizer.fingerprint, sha256_file(file)}:
        raise BadFile(f"{file} is not the tokenizer that the run was trained with: put that one back")


def _makers(index: Path) -> set[str]:
    """Return the tokenizers' fingerprints in an index of tokens; none where it is damaged, which reading the tokens
    tells.
    """
    try:
        return {shard["tokenizer"] for shard in read_json(index)["shards"]}
    except (BadFile, OSError, KeyError, TypeError):
        return set()


def _kernel(config: GPTConfig) -> Attend:
    """Return the kernels that suit each pattern of a model that is only read from."""
    requirements = requirements_of(config, device=machine_device(), dtype=torch.float32, training=False)
    return choose_for(config.patterns, "auto", requirements).attend
