"""A batch that breaks the figures is skipped, training that breaks goes back, what always breaks ends in a line."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fewshot.base.errors import Diverged
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import find_checkpoint
from fewshot.dataset.loader import Batch
from fewshot.train.build import Setup
from fewshot.train.config import OptimizerConfig
from fewshot.train.guard import FEWEST, WINDOW, Fault, Guard
from fewshot.train.loop import train
from fewshot.train.records.counters import counters_of
from fewshot.train.records.metrics import StepMetrics
from fewshot.train.records.receipt import read_receipt
from fewshot.train.records.replay import replay, verify_run
from fewshot.train.run import resume, start
from fewshot.train.schedule import Step
from fewshot.train.step import Gradient, loss_of, losses_of, update

SetInModule = Callable[[object, str, object], None]
ROWS = 4  # of each step


def quiet(line: str) -> None:
    pass


@pytest.fixture
def poison(set_in_module: SetInModule) -> Callable[..., None]:
    """Let the loss of each batch that holds one of these rows of the mixture be multiplied, by default with NaN."""

    def use(rows: Collection[int], factor: float = math.nan) -> None:
        def poisoned(model: Any, batch: Batch, **words: Any) -> Tensor:
            loss = loss_of(model, batch, **words)
            read = range(batch.first_row, batch.first_row + len(batch.tokens))
            return loss * factor if model.training and set(rows) & set(read) else loss

        set_in_module(losses_of, "loss_of", poisoned)

    return use


def events(reports: list[StepMetrics]) -> dict[int, str]:
    return {report.step: report.event for report in reports if report.event}


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def tensors_of(run: Path) -> dict[str, Tensor]:
    path = find_checkpoint(run).path
    return {
        f"{name}/{key}": value
        for name in ("model", "training")
        for key, value in load_file(path / f"{name}.safetensors").items()
    }


def same_bits(a: Path, b: Path) -> None:
    first, second = tensors_of(a), tensors_of(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (a / "receipt.jsonl").read_text() == (b / "receipt.jsonl").read_text()
    lines = [[{**row, "seconds": 0, "tokens_per_second": 0} for row in logged(run)] for run in (a, b)]
    assert lines[0] == lines[1]


# ---- one batch


def test_a_batch_whose_loss_is_nan_changes_nothing_and_the_step_says_so(
    tmp_path: Path, tiny: Any, poison: Callable[..., None], set_in_module: SetInModule
) -> None:
    steps: list[int] = []

    def counted(setup: Setup, step: Step, gradient: Gradient) -> None:
        steps.append(step.number)
        update(setup, step, gradient)

    set_in_module(train, "update", counted)
    poison([17])  # of step 5
    reports = list(start(tiny(loop={"log_every": 100}), tmp_path / "run", say=quiet))
    assert steps == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert events(reports) == {5: "skipped, not learned from: the loss is nan"}
    assert [report.loss is None for report in reports] == [step == 5 for step in range(1, 11)]
    assert [row["step"] for row in logged(tmp_path / "run")] == [1, 5, 10]
    entries = read_receipt(tmp_path / "run" / "receipt.jsonl")
    assert [entry.step for entry in entries if entry.skipped] == [5]
    assert verify_run(tmp_path / "run").n_skipped == 1
    assert all(step.is_same for step in replay(tmp_path / "run", 10, say=quiet))


def test_a_checkpoint_of_a_skipped_step_holds_the_weights_before_it(
    tmp_path: Path, tiny: Any, poison: Callable[..., None]
) -> None:
    poison([17, 21])
    given = tiny(n_steps=6, loop={"checkpoint_every": 1, "keep_checkpoints": 9})
    list(start(given, tmp_path / "run", say=quiet))
    folders = [RunFolder(tmp_path / "run").checkpoint(step) for step in range(3, 7)]
    weights = [load_file(folder / "model.safetensors")["wte.weight"] for folder in folders]
    assert [torch.equal(a, b) for a, b in itertools.pairwise(weights)] == [False, True, True]


@pytest.mark.parametrize("factor", [10.0, 1.7])
def test_a_loss_far_above_the_last_ones_is_not_learned_from(
    tmp_path: Path, tiny: Any, poison: Callable[..., None], factor: float
) -> None:
    n = FEWEST + 6
    poison([ROWS * 2, ROWS * (n - 4)], factor)  # step 3: too early to tell
    (step, event), *others = events(list(start(tiny(n_steps=n), tmp_path / "ten", say=quiet))).items() or [(0, "")]
    assert not others
    if factor == 10:
        assert step == n - 3
        assert event.startswith("skipped, not learned from: the loss is ")
        assert "(--loop.spike_factor)" in event
    else:  # below twice their mean
        assert step == 0
    given = tiny(n_steps=n, loop={"spike_factor": None})
    assert events(list(start(given, tmp_path / "off", say=quiet))) == {}


@pytest.mark.parametrize("noise", [*(pytest.param(x, marks=pytest.mark.slow) for x in (0.02, 0.2)), 1.0])
def test_losses_that_only_scatter_raise_no_alarm(tmp_path: Path, noise: float) -> None:
    guard, draw = Guard(RunFolder(tmp_path), OptimizerConfig(), spike_factor=2.0), random.Random(0)
    for i in range(20_000):
        loss = 3 + 8 * math.exp(-i / 300) + noise * draw.gauss(0, 1)
        step = Step(number=i + 1, first_row=i, n_rows=1, lr_fraction=1.0)
        assert guard.judge(step, Gradient(loss=loss, norm=1.0)) is None
    assert len(guard.history.losses) == WINDOW


# ---- going back


@pytest.mark.parametrize(("every", "again"), [(4, [5, 6, 7]), (3, [7])])
def test_after_three_bad_batches_training_goes_on_behind_them_from_the_last_checkpoint(
    tmp_path: Path, tiny: Any, poison: Callable[..., None], every: int, again: list[int]
) -> None:
    poison(range(16, 28))  # steps 5 to 7
    reports = list(start(tiny(loop={"checkpoint_every": every}), tmp_path / "run", say=quiet))
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6, *again, 8, 9, 10]
    went_back = events(reports)[again[0]]
    reason = "in step 7 the loss is nan, and 2 steps before it were skipped"
    assert went_back.startswith(f"went back to step {again[0] - 1}, because {reason}; ")
    assert went_back.endswith(f"{4 * len(again)} rows are left out")
    entries = read_receipt(tmp_path / "run" / "receipt.jsonl")
    assert [entry.step for entry in entries] == list(range(1, 11))
    assert [entry.first_row for entry in entries[again[0] - 1 :]] == [28 + 4 * i for i in range(11 - again[0])]
    assert [row["step"] for row in logged(tmp_path / "run")] == list(range(1, 11))


def test_every_decision_is_the_same_in_a_run_that_is_stopped_after_every_step(
    tmp_path: Path, tiny: Any, poison: Callable[..., None]
) -> None:
    poison([8, *range(16, 28), 41])
    given = tiny(n_steps=14, loop={"checkpoint_every": 4})
    list(start(given, tmp_path / "whole", say=quiet))
    for stop_after in (2, 5, 7, 9):
        run = tmp_path / str(stop_after)
        reports = start(given, run, say=quiet)
        for _ in range(stop_after):
            next(reports)
        reports.close()
        list(resume(run, say=quiet))
        same_bits(tmp_path / "whole", run)
    assert verify_run(tmp_path / "whole").n_left_out > 0
    assert all(step.is_same for step in replay(tmp_path / "whole", 14, say=quiet))


@pytest.mark.parametrize("name", ["weight", "moment"])
def test_a_nan_in_the_weights_or_a_moment_is_mended_by_the_last_checkpoint(
    tmp_path: Path, tiny: Any, name: str, set_in_module: SetInModule
) -> None:
    n_updates = 0

    def breaks(setup: Setup, step: Step, gradient: Gradient) -> None:
        nonlocal n_updates
        n_updates += 1
        if n_updates == 6:
            pieces = setup.optimizers.weights() if name == "weight" else setup.optimizers.state()
            piece = next(
                piece for piece in pieces if piece.name.startswith("h.1.mlp.c_fc.weight") and piece.tensor.ndim
            )
            piece.tensor.view(-1)[3] = math.nan
        update(setup, step, gradient)

    set_in_module(train, "update", breaks)
    reports = list(start(tiny(n_steps=20, loop={"checkpoint_every": 4}), tmp_path / "run", say=quiet))
    assert reports[-1].step == 20
    assert all(value.isfinite().all() for value in tensors_of(tmp_path / "run").values())
    (event,) = (event for event in events(reports).values() if "went back" in event)
    assert event.startswith("went back to step ")
    assert verify_run(tmp_path / "run").n_left_out > 0


# ---- the end


@pytest.mark.parametrize("factor", [math.nan, 1e300])
def test_what_breaks_each_time_ends_after_three_rewinds_with_one_line_and_nothing_broken_is_saved(
    tmp_path: Path, tiny: Any, poison: Callable[..., None], factor: float
) -> None:
    poison(range(18, 10_000), factor)
    reports: list[StepMetrics] = []
    given = tiny(n_steps=100, loop={"checkpoint_every": 3})
    running = start(given, tmp_path / "run", say=quiet)
    with pytest.raises(Diverged) as caught:
        deque(map(reports.append, running))
    message = str(caught.value)
    assert message.startswith("training diverged after 3 rewinds: in step ")
    assert "and 2 steps before it were skipped; the last good checkpoint is " in message
    assert "\n" not in message
    assert sum("went back" in (report.event or "") for report in reports) == 3
    for path in RunFolder(tmp_path / "run").checkpoint_folders():
        for name in ("model", "training"):
            assert all(value.isfinite().all() for value in load_file(path / f"{name}.safetensors").values())
    assert counters_of(find_checkpoint(tmp_path / "run")).guard.rewinds <= 3


def test_getting_further_than_the_fault_makes_room_for_new_rewinds(
    tmp_path: Path, tiny: Any, poison: Callable[..., None]
) -> None:
    given = tiny(n_steps=60, loop={"checkpoint_every": 2})
    poison([row for first in range(20, 400, 60) for row in range(first, first + 12)])  # three steps of every fifteen
    reports = list(start(given, tmp_path / "run", say=quiet))
    assert sum("went back" in (report.event or "") for report in reports) > 3
    assert reports[-1].step == 60


# ---- what is said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("what", "step", "optimizer", "option"),
    [
        ("the loss after the update", 1, {"lr": 1e30}, "optimizer.lr"),
        ("the validation loss", 7, {"weight_decay": 1e9}, "optimizer.weight_decay"),
        ("the validation loss", 7, {"lr": 1e30, "weight_decay": 0.1}, "optimizer.lr"),
        ("the validation loss", 7, {"lr": 0.1, "weight_decay": 0.1}, "optimizer.lr"),
        ("the validation loss", 7, {"name": "muon"}, "optimizer.lr or optimizer.matrix_lr"),
        ("the validation loss", 7, {"name": "muon", "weight_decay": 1e9}, "optimizer.weight_decay"),
        ("the validation loss", 7, {"name": "muon", "matrix_lr": 1e9}, "optimizer.lr or optimizer.matrix_lr"),
    ],
)
def test_what_most_likely_was_too_large_is_named(
    tmp_path: Path, what: str, value: float, step: int, optimizer: dict[str, object], option: str
) -> None:
    guard = Guard(RunFolder(tmp_path), OptimizerConfig(**optimizer))
    guard.check(what, 3e38, step=step)
    with pytest.raises(Fault) as fault:
        guard.check(what, value, step=step)
    message = f"in step {step} {what} is {value}; there is no earlier checkpoint; start again with a lower {option}"
    with pytest.raises(Diverged, match=f"{message}, in a new folder or after deleting {tmp_path}$"):
        guard.way_back(fault.value)


@pytest.mark.parametrize("first_bad", [1, 2])
def test_a_loss_that_is_nan_before_any_update_is_laid_to_the_initial_weights(tmp_path: Path, first_bad: int) -> None:
    guard = Guard(RunFolder(tmp_path), OptimizerConfig())

    def judge(number: int, loss: float) -> None:
        guard.judge(Step(number=number, first_row=0, n_rows=1, lr_fraction=1.0), Gradient(loss=loss, norm=1.0))

    for number in range(1, first_bad + 2):
        judge(number, 3.0 if number < first_bad else math.nan)
    with pytest.raises(Fault) as fault:
        judge(first_bad + 2, math.nan)
    with pytest.raises(Diverged, match="lower model.init_std" if first_bad == 1 else "lower optimizer.lr"):
        guard.way_back(fault.value)
