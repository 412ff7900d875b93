"""A run folder becomes a model and its tokenizer."""

from __future__ import annotations

from pathlib import Path

from fewshot.base.errors import BadFile
from fewshot.checkpoint.load import find_checkpoint, load_model
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.model.device import machine_device
from fewshot.model.gpt import GPT
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer


def load_run(folder: Path) -> tuple[GPT, Tokenizer, Checkpoint]:
    """The newest model of a run (or the one of a checkpoint folder inside it), its tokenizer and its checkpoint."""
    checkpoint = find_checkpoint(folder)
    for place in (folder, *folder.resolve().parents[:2]):
        if (place / "tokenizer.json").is_file():
            return load_model(checkpoint, device=machine_device()), load_tokenizer(place / "tokenizer.json"), checkpoint
    raise BadFile(f"{folder} has no tokenizer.json: a run folder made by fewshot train is needed")
