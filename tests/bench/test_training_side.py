"""What each side of the training bench runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from fewshot.bench.training_side import Stopwatch, nanogpt, products, transformers

SHAPE: dict[str, Any] = {"n_layers": 3, "d_model": 16, "n_heads": 2, "n_ctx": 8, "n_vocab": 40, "n_rows": 2}

MODEL = """
from dataclasses import dataclass
import torch
@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool
class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = torch.nn.Embedding(config.vocab_size, config.n_embd)
        self.types = []
    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), lr=learning_rate)
    def forward(self, tokens, targets):
        x = self.wte(tokens)
        logits = x @ self.wte.weight.T
        print(str(logits.dtype), tuple(tokens.shape))
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
"""


def test_a_stopwatch_adds_up_what_each_function_takes_and_passes_results_on() -> None:
    watch = Stopwatch()
    timed = watch.around("sleep", lambda seconds: time.sleep(seconds) or seconds)
    assert timed(0.01) + timed(0.02) == 0.03
    assert watch.seconds["sleep"] >= 0.03


def test_products_are_those_of_every_matrix_forward_and_backward() -> None:
    turn, ready = products({**SHAPE, "dtype": "bfloat16"})
    matrices = 3 * 12 * 16 * 16 + 16 * 40
    n_tokens = 16
    assert ready["flops"]["linear"] == 6 * n_tokens * matrices
    pairs = 2 * 2 * 8 * 8  # rows, heads, queries, keys
    assert ready["flops"]["attention"] == 3 * 2 * 2 * pairs * 8 * 3  # three passes, two products, width, layers
    report = turn(2)
    both = report["parts"]
    assert report["seconds"] == both["linear"] + both["attention"] * 9 / 16  # of 64 pairs a causal head allows 36


def test_nanogpt_is_read_from_its_folder_and_runs_in_the_type_that_is_asked(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    for dtype in ("float32", "bfloat16"):
        turn, ready = nanogpt({**SHAPE, "path": str(tmp_path), "dtype": dtype, "compiled": False})
        assert ready["first_step_seconds"] > 0
        assert turn(2)["seconds"] > 0
        assert capsys.readouterr().out.splitlines() == [f"torch.{dtype} (2, 8)"] * 3


def test_transformers_takes_steps() -> None:
    torch.manual_seed(0)
    turn, _ = transformers(SHAPE)
    assert turn(1)["seconds"] > 0
