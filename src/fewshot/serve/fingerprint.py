"""A name for everything that may change a bit of an answer."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from fewshot.base.machine import processor_features
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.kernels.library import library
from fewshot.tokenizer.vocab import Tokenizer


def fingerprint(checkpoint: Checkpoint, tokenizer: Tokenizer, weight_type: str) -> str:
    """Return it: of weights, their type, tokenizer, kernels, processor and versions; the number of threads is none."""
    kernels = "C++" if library().problem is None else "torch"
    parts = [checkpoint.weights, tokenizer.fingerprint, weight_type, kernels, processor_features()]
    parts += [f"{name} {version(name)}" for name in ("fewshot", "torch")]
    return "fs-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
