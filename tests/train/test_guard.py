from __future__ import annotations

import math
from pathlib import Path

import pytest

from fewshot.base.errors import Diverged
from fewshot.train.config import OptimizerConfig
from fewshot.train.guard import Guard


@pytest.mark.parametrize(
    ("what", "step", "optimizer", "option"),
    [
        ("the loss", 1, {}, "model.init_std"),  # of the first weights
        ("the gradient's norm", 1, {"name": "muon"}, "model.init_std"),
        ("the loss", 2, {}, "optimizer.lr"),
        ("the validation loss", 1, {}, "optimizer.lr"),  # after the first update
        ("the loss", 9, {"name": "muon"}, "optimizer.lr or optimizer.matrix_lr"),
        ("the loss", 9, {"weight_decay": 1e6}, "optimizer.weight_decay"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_came_apart_names_the_option_that_helps(
    tmp_path: Path, what: str, step: int, optimizer: dict[str, object], option: str, value: float
) -> None:
    guard = Guard(run=tmp_path, optimizer=OptimizerConfig(**optimizer))  # type: ignore[arg-type]
    guard.check(what, 1e30, step=step)
    with pytest.raises(Diverged, match=rf"in step {step} {what} is -?\w+; there is no .*with a lower {option}$"):
        guard.check(what, value, step=step)
