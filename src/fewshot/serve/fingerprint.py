"""Everything that may change a bit of an answer, and a name for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version

from fewshot.base.machine import processor_features
from fewshot.kernels.library import library
from fewshot.tokenizer.vocab import Tokenizer


def identity(weights: str, tokenizer: Tokenizer, weight_type: str, device: str = "cpu") -> dict[str, str]:
    """Return what an answer's bits depend on beside the request; the number of threads is not part of it.

    `weights` is their digest.
    """
    return {
        "weights": weights,
        "tokenizer": tokenizer.fingerprint,
        "weight_type": weight_type,
        "device": device,
        "kernels": "C++" if library().problem is None and device == "cpu" else "torch",
        "processor": processor_features(),
        **{name: version(name) for name in ("fewshot", "torch")},
    }


def fingerprint(parts: Mapping[str, str]) -> str:
    """Return the name of an identity."""
    return "fs-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
