"""What a tracker is told of a run, and that nothing is trained for one that is not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fewshot.base.errors import BadValue, UnknownName
from fewshot.checkpoint.folder import RunFolder
from fewshot.train.records.trackers import NAMES, check_tracker, tracked
from fewshot.train.run import resume, start


def quiet(line: str) -> None:
    pass


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module with the calls of wandb that are used, which remembers them."""
    calls: list[tuple[str, Any]] = []
    run = SimpleNamespace(
        define_metric=lambda name, step_metric: calls.append(("metric", (name, step_metric))),
        log=lambda figures: calls.append(("log", figures)),
        finish=lambda: calls.append(("finish", None)),
    )

    def init(**words: Any) -> SimpleNamespace:
        calls.append(("init", words))
        return run

    module = SimpleNamespace(init=init, calls=calls, __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return module


def test_wandb_gets_the_logged_steps_offline_and_a_resumed_run_is_the_same_one(
    tmp_path: Path, tiny: Any, wandb: SimpleNamespace
) -> None:
    run = tmp_path / "run"
    check_tracker("wandb")
    given = tiny(n_steps=7, loop={"log_every": 3, "checkpoint_every": 2})
    reports = tracked(start(given, run, say=quiet), RunFolder(run), "wandb")
    done = [next(reports) for _ in range(4)]
    reports.close()  # type: ignore[attr-defined]
    done += tracked(resume(run, say=quiet), RunFolder(run), "wandb")
    assert [report.step for report in done] == [1, 2, 3, 4, 5, 6, 7]
    names = [name for name, _ in wandb.calls]
    assert names == ["init", "metric", "log", "log", "finish", "init", "metric", "log", "log", "finish"]
    first, second = (words for name, words in wandb.calls if name == "init")
    assert (first["mode"], first["dir"], first["name"]) == ("offline", str(run), "run")
    assert first["id"] == second["id"]
    assert first["config"]["model"]["d_model"] == 16
    logged = [figures for name, figures in wandb.calls if name == "log"]
    assert [figures["step"] for figures in logged] == [1, 3, 6, 7]
    assert logged[1]["train/loss"] == done[2].loss
    assert logged[-1]["validation/loss"] == done[-1].val_loss
    assert "validation/loss" not in logged[0]


def test_trackio_gets_the_same_in_a_folder_of_the_run(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []
    tracker = SimpleNamespace(
        log=lambda figures, step: calls.append((step, figures)), finish=lambda: calls.append(("finish", None))
    )
    module = SimpleNamespace(init=lambda **words: calls.append(("init", words)) or tracker, __spec__=object())
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.setitem(os.environ, "TRACKIO_DIR", "")  # put back at the end
    monkeypatch.delenv("TRACKIO_DIR")
    run = tmp_path / "run"
    check_tracker("trackio")
    done = list(tracked(start(tiny(n_steps=4, loop={"log_every": 3}), run, say=quiet), RunFolder(run), "trackio"))
    assert os.environ["TRACKIO_DIR"] == str(run / "trackio")
    names, words = zip(*calls, strict=True)
    assert names == ("init", 1, 3, 4, "finish")
    assert (words[0]["project"], words[0]["resume"]) == ("fewshot", "allow")
    assert words[0]["name"].startswith("run-")
    assert [figures["train/loss"] for figures in words[1:4]] == [done[step - 1].loss for step in (1, 3, 4)]
    assert words[3]["validation/loss"] == done[-1].val_loss


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_tracker_that_fails_does_not_stop_training(
    tmp_path: Path, tiny: Any, wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: Any, broken: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such project\nand more")

    monkeypatch.setattr(wandb if broken == "init" else wandb.init(), broken, fail)
    run = tmp_path / "run"
    done = list(tracked(start(tiny(n_steps=7), run, say=quiet), RunFolder(run), "wandb"))
    assert [report.step for report in done] == [1, 2, 3, 4, 5, 6, 7]
    said = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert said == ["wandb is left out from here on: no such project and more; metrics.jsonl has every figure"]


def test_tensorboard_has_the_curves_and_what_is_done_again_is_not_there_twice(tmp_path: Path, tiny: Any) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    given = tiny(n_steps=7, loop={"checkpoint_every": 3})
    reports = tracked(start(given, run, say=quiet), RunFolder(run), "tensorboard")
    done = {report.step: report for _, report in zip(range(5), reports, strict=False)}
    reports.close()  # type: ignore[attr-defined]
    again = tracked(resume(run, say=quiet), RunFolder(run), "tensorboard")
    done |= {report.step: report for report in again}
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(NAMES.values())
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(1, 8))
    assert [event.value for event in losses] == pytest.approx([done[step].loss for step in range(1, 8)])


def test_a_tracker_that_is_unknown_or_not_installed_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UnknownName, match="tensorboard"):
        check_tracker("tensorbord")
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(BadValue, match=r"--log wandb needs a package .*: pip install 'fewshot\[wandb\]'"):
        check_tracker("wandb")
