"""Runs so small that a whole one takes a fraction of a second."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.config import lay_over

N_CTX, STEP_TOKENS = 16, 64


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "was", "happy"]
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    lines = [" ".join(random.Random(i).choices(words, k=9)) for i in range(120)]  # documents of about 40 characters
    path.write_text("".join(f'{{"text": "{line}"}}\n' for line in lines))
    return path


class Tiny:
    """Makes configurations for `start`: 10 steps of 4 rows, validated and saved at the end alone."""

    def __init__(self, text: Path) -> None:
        self.text = text

    def __call__(self, n_steps: int = 10, **sections: dict[str, Any]) -> dict[str, Any]:
        n_tokens = n_steps * STEP_TOKENS
        base = {
            "data": {"sources": [{"name": "text", "text": [str(self.text)]}], "tokenizer": "chars"},
            "model": {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_ctx": N_CTX},
            "schedule": {
                "n_tokens": n_tokens,
                "batch_tokens": STEP_TOKENS,
                "batch_start_tokens": STEP_TOKENS,
                "ramp_tokens": 0,
                "warmup_tokens": 0,
                "decay_tokens": n_tokens,
            },
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "loop": {"compile": "never", "kernel": "sdpa", "log_every": 1},
        }
        return lay_over(base, sections)


@pytest.fixture(scope="session")
def tiny(text: Path) -> Tiny:
    return Tiny(text)


def quiet(line: str) -> None:
    """What `say` may be."""
