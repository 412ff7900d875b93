"""The gradient of a batch does not depend on the parts that it is computed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot.dataset.loader import IGNORED, load_batch
from fewshot.train.build import Setup
from fewshot.train.run import start
from fewshot.train.schedule import Step
from fewshot.train.step import compute_gradient, micro_batch

STEP = Step(number=1, first_row=2, n_rows=4, lr_fraction=1.0)


@pytest.fixture
def setup_with(tmp_path: Path, tiny: Any, set_in_module: Callable[[object, str, object], None]) -> Callable[..., Setup]:
    """What a tiny run would be trained with, for a value of micro_rows and of dropout."""

    def make(micro_rows: int, dropout: float = 0.0) -> Setup:
        setups: list[Setup] = []
        set_in_module(start, "train", lambda setup, run, resume=None, watch=None: iter(setups.append(setup) or ()))
        given = tiny(n_steps=3, loop={"micro_rows": micro_rows}, model={"dropout": dropout})
        assert list(start(given, tmp_path / f"{micro_rows}-{dropout}", say=lambda line: None)) == []
        return setups[0]

    return make


@pytest.mark.parametrize("micro_rows", [1, 3, 4])
def test_parts_have_one_shape_and_every_row_of_the_batch_once(
    setup_with: Callable[..., Setup], micro_rows: int
) -> None:
    setup = setup_with(micro_rows)
    parts = [micro_batch(setup, STEP, i) for i in range(-(-4 // micro_rows))]
    whole = load_batch(setup.mixture, first_row=2, n_rows=4)
    assert {part.tokens.shape for part in parts} == {(micro_rows, 16)}
    targets = torch.cat([part.targets for part in parts])
    assert torch.equal(targets[:4], whole.targets)
    assert (targets[4:] == IGNORED).all()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_parts_change_neither_loss_nor_gradient_dropout_included(
    setup_with: Callable[..., Setup], dropout: float
) -> None:
    found = {}
    for micro_rows in (4, 3):
        setup = setup_with(micro_rows, dropout)
        gradient = compute_gradient(setup, STEP)
        found[micro_rows] = gradient, [weight.grad for weight in setup.model.parameters()]
    (whole, gradients), (parts, others) = found.values()
    assert (parts.loss, parts.norm) == pytest.approx((whole.loss, whole.norm), rel=1e-5)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-6)
    assert whole.norm > 0.1
