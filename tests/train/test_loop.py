"""The loop as a whole: its figures by hand and by golden values, its stops, and what it refuses to write."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import runpy
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fewshot.base.errors import Diverged
from fewshot.base.interrupt import polite_stop
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import find_checkpoint, load_model
from fewshot.checkpoint.manifest import write_manifest
from fewshot.checkpoint.save import check_finite, save, write_tensors
from fewshot.dataset.loader import ValidationBatches, load_batch
from fewshot.dataset.prepare import load_tokens, training_mixture
from fewshot.kernels import reference
from fewshot.train.build import Setup, build
from fewshot.train.loop import train
from fewshot.train.records.metrics import write_line
from fewshot.train.run import read_run_config, resume, start
from fewshot.train.saving import validation_loss
from fewshot.train.step import compute_gradient, update

GOLDEN = Path(__file__).parent / "golden"


def quiet(line: str) -> None:
    """What `say` may be."""


def rows_of(run: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def tensors_of(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(find_checkpoint(run).path / f"{name}.safetensors")


def wait_for_checkpoint(run: Path, step: int) -> Path:
    """It is written beside the steps that come after it."""
    while not (path := RunFolder(run).checkpoint(step)).exists():
        time.sleep(0.005)
    return path


# ---- figures


def test_twenty_steps_give_the_golden_losses(tmp_path: Path) -> None:
    """A change of any digit is a change of what is trained: if it is meant, make_loss_trail.py writes it anew."""
    golden = json.loads((GOLDEN / "loss_trail.json").read_text())
    make = runpy.run_path(str(GOLDEN / "make_loss_trail.py"))
    for name, losses in make["trail"](tmp_path / "run").items():
        assert losses == pytest.approx(golden[name], rel=1e-6), name


def test_the_validation_loss_and_bits_per_byte_are_those_computed_by_hand(tmp_path: Path, tiny: Any) -> None:
    reports = list(start(tiny(n_steps=3, loop={"micro_rows": 2}), tmp_path / "run", say=quiet))
    config = read_run_config(tmp_path / "run")
    (shard,) = load_tokens(config.data, RunFolder(tmp_path / "run").data).validation
    tokens = torch.tensor(shard.tokens().astype("int64"))
    model = load_model(find_checkpoint(tmp_path / "run"), attend=reference.attend)
    total = count = 0.0
    for first in range(0, len(tokens) - 16, 16):  # every whole row of 16 predictions, each token predicted once
        row = tokens[first : first + 17]
        logits = model(row[None, :-1])[0]
        total += F.cross_entropy(logits, row[1:], reduction="sum").item()
        count += 16
    assert reports[-1].val_loss == pytest.approx(total / count, rel=1e-5)
    per_byte = total / count * len(tokens) / shard.n_bytes / math.log(2)
    assert reports[-1].val_bits_per_byte == pytest.approx(per_byte, rel=1e-5)
    assert [report.val_loss for report in reports[:-1]] == [None, None]


@pytest.mark.parametrize("micro_rows", [1, 3, 5])
def test_accumulation_changes_neither_losses_nor_weights(tmp_path: Path, tiny: Any, micro_rows: int) -> None:
    steps = {}
    for name, rows in {"whole": 4, "parts": micro_rows}.items():
        reports = list(start(tiny(n_steps=5, loop={"micro_rows": rows}), tmp_path / name, say=quiet))
        steps[name] = [(report.loss, report.grad_norm) for report in reports]
    assert steps["parts"] == [pytest.approx(pair, rel=1e-5) for pair in steps["whole"]]
    whole, parts = (tensors_of(tmp_path / name, "model") for name in steps)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip", [0.01, 1000.0])
def test_the_gradient_is_clipped_by_its_norm_over_all_micro_batches(tmp_path: Path, tiny: Any, clip: float) -> None:
    given = tiny(n_steps=1, optimizer={"clip": clip, "beta1": 0.9}, loop={"micro_rows": 3})
    (report,) = start(given, tmp_path / "run", say=quiet)
    moments = tensors_of(tmp_path / "run", "training")
    first = torch.cat([moment.flatten() for name, moment in moments.items() if name.endswith("/exp_avg")])
    assert report.grad_norm > 0.1
    assert first.norm().item() / (1 - 0.9) == pytest.approx(min(clip, report.grad_norm), rel=1e-4)


def test_under_document_masking_a_token_is_predicted_from_its_own_document_alone(tmp_path: Path, tiny: Any) -> None:
    losses = {}
    for masked in (False, True):
        given = tiny(n_steps=1, loop={"document_masking": masked})
        losses[masked] = next(start(given, tmp_path / str(masked), say=quiet)).loss
    assert abs(losses[True] - losses[False]) > 1e-4
    fresh = next(start(tiny(n_steps=1, optimizer={"lr": 1e-30}), tmp_path / "fresh", say=quiet))  # the first weights
    assert fresh.loss == losses[False]
    config = read_run_config(tmp_path / "fresh")
    model = load_model(find_checkpoint(tmp_path / "fresh"), attend=reference.attend)
    places = {name: table.clone() for name, table in model.wpe.state_dict().items()}
    (name,) = places
    tokens = load_tokens(config.data, RunFolder(tmp_path / "fresh").data)
    mixture = training_mixture(config.data, tokens, n_ctx=16, seed=config.loop.seed)
    batch = load_batch(mixture, first_row=0, n_rows=4, with_documents=True)
    assert batch.documents is not None
    total = 0.0
    for tokens, targets, documents in zip(batch.tokens, batch.targets, batch.documents, strict=True):
        for number in documents.unique():  # each document by itself, at the positions that it has in the row
            (where,) = (documents == number).nonzero(as_tuple=True)
            model.wpe.load_state_dict({name: places[name].roll(-int(where[0]), 0)})
            total += F.cross_entropy(model(tokens[None, where])[0], targets[where], reduction="sum").item()
    assert losses[True] == pytest.approx(total / batch.tokens.numel(), rel=1e-5)


def test_the_newest_checkpoints_are_kept_by_number(tmp_path: Path, tiny: Any) -> None:
    given = tiny(loop={"checkpoint_every": 2, "keep_checkpoints": 3})
    for report in start(given, tmp_path / "run", say=quiet):
        if report.step % 2 == 0 and report.step < 10:
            wait_for_checkpoint(tmp_path / "run", report.step)
    names = [path.name for path in RunFolder(tmp_path / "run").checkpoint_folders()]
    assert names == [f"step-{step:08d}" for step in (6, 8, 10)]


# ---- stopping


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def sends(number: int, then: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """As `then`, after this process got a signal."""

    def call(*args: Any, **kwargs: Any) -> Any:
        for _ in range(times):
            os.kill(os.getpid(), number)
        return then(*args, **kwargs)

    return call


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_in_a_step_saves_it_and_leaves_validation_out(
    tmp_path: Path,
    tiny: Any,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    set_in_module: Callable[[object, str, object], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    reports = start(tiny(loop={"validate_every": 4}), tmp_path / "run", say=quiet)
    done = [next(reports) for _ in range(3)]
    set_in_module(train, "compute_gradient", sends(number, compute_gradient))
    done += reports
    assert [report.step for report in done] == [1, 2, 3, 4]
    assert done[-1].val_loss is None
    assert find_checkpoint(tmp_path / "run").step == 4
    assert "stopping after this step" in capfd.readouterr().err
    monkeypatch.undo()
    rest = list(resume(tmp_path / "run", say=quiet))
    assert [report.step for report in rest] == [4, 5, 6, 7, 8, 9, 10]  # what was left out first
    assert rest[0].val_loss is not None


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("where", ["before", "within"])
def test_a_stop_in_a_validation_ends_it_with_the_step_saved(
    tmp_path: Path,
    tiny: Any,
    number: int,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    set_in_module: Callable[[object, str, object], None],
) -> None:
    class Sending(ValidationBatches):
        __getitem__ = sends(number, ValidationBatches.__getitem__)

    given = tiny(loop={"validate_every": 4, "micro_rows": 1})
    list(start(given, tmp_path / "whole", say=quiet))
    if where == "before":
        set_in_module(validation_loss, "validation_loss", sends(number, validation_loss))
    else:
        set_in_module(
            validation_loss,
            "ValidationBatches",
            Sending,
        )
    assert [report.step for report in start(given, tmp_path / "run", say=quiet)] == [1, 2, 3, 4]
    monkeypatch.undo()
    assert find_checkpoint(tmp_path / "run").step == 4
    list(resume(tmp_path / "run", say=quiet))
    same_run(tmp_path / "whole", tmp_path / "run")


def same_run(a: Path, b: Path) -> None:
    for name in ("model", "training"):
        first, second = tensors_of(a, name), tensors_of(b, name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    kept = [[{**row, "seconds": 0, "tokens_per_second": 0} for row in rows_of(run)] for run in (a, b)]
    assert kept[0] == kept[1]


def test_a_finished_model_survives_a_validation_that_fails_and_is_validated_later(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, set_in_module: Callable[[object, str, object], None]
) -> None:
    list(start(tiny(), tmp_path / "whole", say=quiet))

    def full(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    set_in_module(validation_loss, "validation_loss", full)
    for again in (start(tiny(), tmp_path / "run", say=quiet), resume(tmp_path / "run", say=quiet)):
        with pytest.raises(RuntimeError, match="can't allocate"):
            list(again)
        assert find_checkpoint(tmp_path / "run").step == 10
    monkeypatch.undo()
    (report,) = resume(tmp_path / "run", say=quiet)
    assert (report.step, report.val_loss) == (10, rows_of(tmp_path / "whole")[-1]["val_loss"])
    same_run(tmp_path / "whole", tmp_path / "run")
    assert list(resume(tmp_path / "run", say=quiet)) == []


def test_a_kill_between_checkpoint_and_line_loses_no_line(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, set_in_module: Callable[[object, str, object], None]
) -> None:
    given = tiny(loop={"checkpoint_every": 4})
    list(start(given, tmp_path / "whole", say=quiet))

    def killed(metrics: Any, file: Any) -> None:
        if metrics.step == 4:
            raise KeyboardInterrupt
        write_line(metrics, file)

    set_in_module(train, "write_line", killed)
    with pytest.raises(KeyboardInterrupt):
        list(start(given, tmp_path / "run", say=quiet))
    monkeypatch.undo()
    list(resume(tmp_path / "run", say=quiet))
    same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("function", [write_manifest, write_tensors, check_finite])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_while_it_saves_stops_at_once_and_leaves_the_older_checkpoint(
    tmp_path: Path,
    tiny: Any,
    number: int,
    function: Callable[..., object],
    set_in_module: Callable[[object, str, object], None],
) -> None:
    def call(*args: Any, **kwargs: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), number)
            time.sleep(0.1)  # two that come at once are taken for one; the thread that trains hears them
        return function(*args, **kwargs)

    set_in_module(polite_stop, "SAME_SECONDS", 0.0)
    reports = start(tiny(n_steps=4, loop={"checkpoint_every": 2}), tmp_path / "run", say=quiet)
    for _ in range(3):
        next(reports)
    older = wait_for_checkpoint(tmp_path / "run", 2)
    set_in_module(save, function.__name__, call)
    with pytest.raises(KeyboardInterrupt):
        list(reports)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [older.name]
    assert find_checkpoint(tmp_path / "run").path == older


def test_a_second_signal_while_it_prunes_leaves_no_half_of_a_checkpoint(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = shutil.rmtree

    def interrupted(path: Path, ignore_errors: bool = False) -> None:
        if path.name == ".step-00000002.old.partial":
            next(path.iterdir()).unlink()
            raise KeyboardInterrupt
        rmtree(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(start(tiny(loop={"checkpoint_every": 2, "keep_checkpoints": 1}), tmp_path / "run", say=quiet))
    assert [find_checkpoint(path).step for path in RunFolder(tmp_path / "run").checkpoint_folders()] == [4]
    list(resume(tmp_path / "run", say=quiet))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000010"]


# ---- what is not finite


APART: dict[str, tuple[dict[str, Any], str]] = {
    "one step at 1e30": ({"n_steps": 1, "optimizer": {"lr": 1e30}}, "optimizer.lr"),
    "one step at 1e38": ({"n_steps": 1, "optimizer": {"lr": 1e38}}, "optimizer.lr"),
    "one step at 1e300": ({"n_steps": 1, "optimizer": {"lr": 1e300}}, "optimizer.lr"),
    "one step, nothing held out": (
        {"n_steps": 1, "optimizer": {"lr": 1e30}, "data": {"val_fraction": 0.0}},
        "optimizer.lr",
    ),
    "each step saved": ({"optimizer": {"lr": 1e30}, "loop": {"checkpoint_every": 1}}, "optimizer.lr"),
    "each step validated": ({"optimizer": {"lr": 1e30}, "loop": {"validate_every": 1}}, "optimizer.lr"),
    "nothing between": ({"optimizer": {"lr": 1e30}}, "optimizer.lr"),
    "bfloat16": ({"n_steps": 1, "optimizer": {"lr": 1e30}, "loop": {"precision": "bfloat16"}}, "optimizer.lr"),
    "masked": ({"n_steps": 1, "optimizer": {"lr": 1e30}, "loop": {"document_masking": True}}, "optimizer.lr"),
    "muon": ({"optimizer": {"name": "muon", "matrix_lr": 1e38}}, "optimizer.lr or optimizer.matrix_lr"),
    "normuon": ({"optimizer": {"name": "normuon", "matrix_lr": 1e38}}, "optimizer.lr or optimizer.matrix_lr"),
    "decay": ({"n_steps": 20, "optimizer": {"weight_decay": 1e9}}, "optimizer.weight_decay"),
    "huge decay, one step": ({"n_steps": 1, "optimizer": {"weight_decay": 1e300}}, "optimizer.weight_decay"),
    "post-ln": ({"n_steps": 1, "model": {"block": "post-ln"}, "optimizer": {"lr": 1e38}}, "optimizer.lr"),
}


@pytest.mark.parametrize("what", APART)
def test_training_that_comes_apart_ends_and_nothing_of_it_is_kept(tmp_path: Path, tiny: Any, what: str) -> None:
    given, option = APART[what]
    advice = rf"start again with a lower {option}(, in a new folder or after deleting \S+)?$"
    with pytest.raises(Diverged, match=advice) as caught:
        list(start(tiny(**given), tmp_path / "run", say=quiet))
    assert "\n" not in str(caught.value)
    figures = [value for row in rows_of(tmp_path / "run") for value in row.values() if isinstance(value, (int, float))]
    assert all(math.isfinite(value) for value in figures)
    for path in RunFolder(tmp_path / "run").checkpoint_folders():
        for name in ("model", "training"):
            assert all(tensor.isfinite().all() for tensor in load_file(path / f"{name}.safetensors").values())


@pytest.mark.parametrize("every", [{"checkpoint_every": 1}, {"checkpoint_every": 4, "validate_every": 1}])
def test_a_good_checkpoint_is_not_pushed_out_and_is_named_as_the_way_out(
    tmp_path: Path, tiny: Any, every: dict[str, int], set_in_module: Callable[[object, str, object], None]
) -> None:
    reports = start(tiny(loop={**every, "keep_checkpoints": 1}), tmp_path / "run", say=quiet)
    for _ in range(4):
        next(reports)
    good = RunFolder(tmp_path / "run").checkpoint(4)

    def breaks(setup: Setup, *args: Any) -> None:
        update(setup, *args)
        with torch.no_grad():
            setup.model.h[1].mlp.c_fc.bias[3] = float("nan")

    set_in_module(train, "update", breaks)
    with pytest.raises(Diverged, match=rf"in step 5 .*; the last good checkpoint is {good}; start again with"):
        list(reports)
    assert find_checkpoint(tmp_path / "run").path == good
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_validation_loss_that_is_not_finite_takes_its_own_checkpoint_with_it(
    tmp_path: Path, tiny: Any, set_in_module: Callable[[object, str, object], None]
) -> None:
    reports = start(tiny(loop={"checkpoint_every": 4, "keep_checkpoints": 1}), tmp_path / "run", say=quiet)
    for _ in range(9):
        next(reports)
    set_in_module(validation_loss, "validation_loss", lambda *args, **kwargs: float("inf"))
    with pytest.raises(Diverged, match=r"in step 10 the validation loss is inf; .*step-00000008; start again"):
        list(reports)
    assert [path.name for path in RunFolder(tmp_path / "run").checkpoint_folders()] == ["step-00000008"]


def test_validation_rows_are_read_in_packed_order(tmp_path: Path, tiny: Any) -> None:
    list(start(tiny(n_steps=1), tmp_path / "run", say=quiet))
    config = read_run_config(tmp_path / "run")
    tokens = load_tokens(config.data, RunFolder(tmp_path / "run").data)
    losses = {}
    for n in (1, 3, 64):
        loop = dataclasses.replace(config.loop, micro_rows=n)
        setup = build(dataclasses.replace(config, loop=loop), tokens, say=quiet)
        losses[n] = validation_loss(setup)
    assert losses[1] == pytest.approx(losses[3], rel=1e-6) == pytest.approx(losses[64], rel=1e-6)
