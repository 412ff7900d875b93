"""What the demo trains and what must come out: literal values, from the experiments in LOG.md.

Layers 0 and 2 read two keys (itself and the one before: a ready-made previous-token head), layers 1 and 3 read all;
so the induction circuit of a GPT-3-shaped model forms within minutes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.evaluate.result import Result

SHOTS = (0, 1, 2, 4, 8, 16)
ROWS, N_CTX, STEPS = 32, 96, 1500
ENGLISH_CHARS = 3_000_000
DOCUMENTS = {"repeats": 7_000, "novel_symbols": 14_000, "hidden_offset": 11_000, "hidden_letter": 11_000}
WEIGHTS = {"english": 0.30, "repeats": 0.12, "novel_symbols": 0.27, "hidden_offset": 0.17, "hidden_letter": 0.14}
CHECKPOINT_EVERY = 50  # steps; all are kept, to show when the copying head comes into being
COPIED, COPIED_SHOTS, COPIED_QUESTIONS = "novel_symbols", 16, 200  # what is solved at every checkpoint
TASKS = {"novel_symbols": 2000, "hidden_offset": 500, "hidden_letter": 500}  # questions of each
PROMPTS = ("", "Return the", "The function")
MAX_VAL_LOSS = 2.2  # nats a token over the held-out documents of all sources; runs gave 1.6 to 1.7


def configuration(texts: Path, *, seed: int = 0) -> dict[str, Any]:
    """Return the demo's training configuration, for the files that `write_texts` wrote into `texts`."""
    tokens = STEPS * ROWS * N_CTX
    return {
        "data": {
            "sources": [
                {"name": name, "text": [str(texts / f"{name}.jsonl")], "weight": weight}
                for name, weight in WEIGHTS.items()
            ],
            "n_vocab": 512,
            "val_fraction": 0.02,
        },
        "model": {
            "n_layers": 4,
            "d_model": 64,
            "n_heads": 2,
            "n_ctx": N_CTX,
            "pattern": "alternate(banded(2), dense)",
        },
        "schedule": {
            "n_tokens": tokens,
            "batch_tokens": ROWS * N_CTX,
            "batch_start_tokens": ROWS * N_CTX,
            "ramp_tokens": 0,
            "warmup_tokens": 20 * ROWS * N_CTX,
            "decay_tokens": tokens,
        },
        "optimizer": {"name": "muon", "matrix_lr": 0.01, "lr": 3e-3, "weight_decay": 0.0},
        "loop": {
            "seed": seed,
            "compile": "never",
            "validate_every": 250,
            "checkpoint_every": CHECKPOINT_EVERY,
            "keep_checkpoints": math.ceil(STEPS / CHECKPOINT_EVERY),
        },
    }


@dataclass(frozen=True)
class Check:
    """One expected figure, and the measured one."""

    claim: str
    measured: str
    holds: bool


def check_figures(results: Sequence[Result], val_loss: float) -> list[Check]:
    """Return the demo's claims about in-context learning, each with the measured figure and whether it holds."""
    value = {(result.task, result.shots): result.value or 0.0 for result in results}
    ideal = {result.shots: result.ideal or 1.0 for result in results if result.task == "novel_symbols"}
    curve = [value["novel_symbols", k] for k in SHOTS[:5]]
    times, share = curve[4] / max(curve[0], 1e-9), curve[4] / ideal[8]
    offset = {result.shots: result for result in results if result.task == "hidden_offset"}
    apart = (offset[8].low or 0.0) > (offset[0].high or 1.0)
    return [
        Check(
            "accuracy on unseen mappings rises at every step of K = 0, 1, 2, 4, 8",
            " < ".join(f"{accuracy:.3f}" for accuracy in curve),
            all(a < b for a, b in itertools.pairwise(curve)),
        ),
        Check("at K = 8 it is at least 6 times that at K = 0", f"{times:.1f} times", times >= 6),
        Check("at K = 8 it is at least 0.8 of the ideal learner's", f"{share:.2f} of {ideal[8]:.3f}", share >= 0.8),
        Check(
            "unknown offsets: 8 shots beat none, with 95% intervals apart",
            f"{offset[0].value:.3f} -> {offset[8].value:.3f}",
            apart,
        ),
        Check(f"validation loss is at most {MAX_VAL_LOSS} nats/token", f"{val_loss:.3f}", val_loss <= MAX_VAL_LOSS),
    ]
