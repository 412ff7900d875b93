from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import Diverged
from fewshot.checkpoint.folder import RunFolder
from fewshot.train.config import OptimizerConfig
from fewshot.train.saving import Guard


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("what", "step", "updated", "optimizer", "option"),
    [
        ("the loss", 1, False, {}, "model.init_std"),  # before any update
        ("the gradient's norm", 1, False, {"lr": 1e30}, "model.init_std"),
        ("the loss after the update", 1, True, {"lr": 1e30}, "optimizer.lr"),
        ("the loss", 2, False, {}, "optimizer.lr"),
        ("the validation loss", 7, True, {"weight_decay": 1e9}, "optimizer.weight_decay"),
        ("the loss", 7, False, {"lr": 1e30, "weight_decay": 0.1}, "optimizer.lr"),
        ("the loss", 7, False, {"lr": 0.1, "weight_decay": 0.1}, "optimizer.lr"),
        ("the loss", 7, False, {"name": "muon"}, "optimizer.lr or optimizer.matrix_lr"),
        ("the loss", 7, False, {"name": "muon", "weight_decay": 1e9}, "optimizer.weight_decay"),
        ("the loss", 7, False, {"name": "muon", "matrix_lr": 1e9}, "optimizer.lr or optimizer.matrix_lr"),
    ],
)
def test_what_most_likely_was_too_large_is_named(
    tmp_path: Path, what: str, value: float, step: int, updated: bool, optimizer: dict[str, object], option: str
) -> None:
    guard = Guard(run=RunFolder(tmp_path), optimizer=OptimizerConfig(**optimizer))
    guard.check(what, 3e38, step=step, updated=updated)
    message = f"in step {step} {what} is {value}; there is no earlier checkpoint; start again with a lower {option}"
    message += f", in a new folder or after deleting {tmp_path}"
    with pytest.raises(Diverged, match=f"{message}$"):
        guard.check(what, value, step=step, updated=updated)
