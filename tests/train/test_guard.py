from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import Diverged
from fewshot.train.config import OptimizerConfig
from fewshot.train.guard import Guard


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("what", "step", "optimizer", "option"),
    [
        ("the loss", 1, {}, "model.init_std"),  # before any update
        ("the gradient's norm", 1, {"lr": 1e30}, "model.init_std"),
        ("the loss after the update", 1, {"lr": 1e30}, "optimizer.lr"),
        ("the loss", 2, {}, "optimizer.lr"),
        ("the validation loss", 7, {"weight_decay": 1e9}, "optimizer.weight_decay"),
        ("the loss", 7, {"lr": 1e30, "weight_decay": 0.1}, "optimizer.lr"),
        ("the loss", 7, {"lr": 0.1, "weight_decay": 0.1}, "optimizer.lr"),
        ("the loss", 7, {"name": "muon"}, "optimizer.lr or optimizer.matrix_lr"),
        ("the loss", 7, {"name": "muon", "weight_decay": 1e9}, "optimizer.weight_decay"),
        ("the loss", 7, {"name": "muon", "matrix_lr": 1e9}, "optimizer.lr or optimizer.matrix_lr"),
    ],
)
def test_what_most_likely_was_too_large_is_named(
    tmp_path: Path, what: str, value: float, step: int, optimizer: dict[str, object], option: str
) -> None:
    guard = Guard(run=tmp_path, optimizer=OptimizerConfig(**optimizer))
    guard.check(what, 3e38, step=step)
    message = f"in step {step} {what} is {value}; there is no checkpoint from before; start again with a lower {option}"
    message += f", in a new folder or after deleting {tmp_path}"
    with pytest.raises(Diverged, match=f"{message}$"):
        guard.check(what, value, step=step)
