"""Models for tests of formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fewshot.base.files import read_json
from fewshot.checkpoint.export import NOTE, export
from fewshot.checkpoint.runtimes.compare import Checked
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer


def shaken(**shape: Any) -> GPT:
    """A model of which every weight, gain and bias is random and far from where training begins."""
    model = GPT(GPTConfig(**shape), seed=1).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.25)
            if "ln_" in name and name.endswith("weight"):
                parameter.copy_(1 + parameter.clamp(-0.8, 0.8))
    return model


def exported(folder: Path, model: GPT, tokenizer: Tokenizer, *, written_as: str) -> Checked:
    """Export a model, and return what was compared: there must be something."""
    told = export(folder, model, tokenizer, written_as=written_as, source={})
    assert told.startswith("checked with "), told
    return Checked(**read_json(folder / NOTE)["checked"])
