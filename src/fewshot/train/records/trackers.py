"""A run's metrics for TensorBoard, Weights & Biases or Trackio, while it goes. metrics.jsonl stays the truth.

In: the metrics of every step. Out: the same, while those that are logged also go to the tracker, under the run folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from fewshot.base.config import to_plain
from fewshot.base.dist import rank
from fewshot.base.errors import BadValue, look_up
from fewshot.base.log import note
from fewshot.checkpoint.folder import RunFolder
from fewshot.train.records.metrics import StepMetrics
from fewshot.train.run import read_run_config

NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "lr_fraction": "train/lr_fraction",
    "tokens": "train/tokens",
    "tokens_per_second": "train/tokens_per_second",
    "val_loss": "validation/loss",
    "val_bits_per_byte": "validation/bits_per_byte",
}


class Tracker(Protocol):
    """Where figures go."""

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a step; those of one that was done before replace what it had (not in Trackio)."""

    def close(self) -> None:
        """Write what is not written yet."""


class _TensorBoard:
    """Event files in RUN/tensorboard: `tensorboard --logdir RUN`."""

    def __init__(self, run: RunFolder, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first_step)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A folder RUN/wandb, offline unless WANDB_MODE says otherwise: `wandb sync RUN/wandb/latest-run`."""

    def __init__(self, run: RunFolder, first_step: int) -> None:
        wandb: Any = importlib.import_module("wandb")
        folder = run.path.resolve()
        self._run = wandb.init(
            project="fewshot",
            name=folder.name,
            id=_name_for(folder)[:16],  # a resumed run is the same one
            resume="allow",
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=to_plain(read_run_config(run.path)),
        )
        self._run.define_metric("*", step_metric="step")  # its own steps never go back

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({"step": step, **figures})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """A database in RUN/trackio, unless TRACKIO_DIR says otherwise: `TRACKIO_DIR=RUN/trackio trackio show`."""

    def __init__(self, run: RunFolder, first_step: int) -> None:
        folder = run.path.resolve()
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))  # it reads this when it is imported
        trackio: Any = importlib.import_module("trackio")
        with contextlib.redirect_stdout(sys.stderr):  # it prints a greeting
            self._run = trackio.init(
                project="fewshot",
                name=f"{folder.name}-{_name_for(folder)[:8]}",  # by its name a resumed run is the same one
                config=to_plain(read_run_config(run.path)),
                resume="allow",
                embed=False,
            )

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


def _name_for(folder: Path) -> str:
    """Return what tells a run's folder from all others."""
    return hashlib.sha256(str(folder).encode()).hexdigest()


TRACKERS: dict[str, Callable[[RunFolder, int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
}


def check_tracker(name: str) -> None:
    """Raise `BadValue` if there is no such tracker, or if it is not installed."""
    look_up("tracker", name, TRACKERS)
    if importlib.util.find_spec(name) is None:
        raise BadValue(f"--log {name} needs a package that is not installed: pip install 'fewshot[{name}]'")


def tracked(reports: Iterator[StepMetrics], run: RunFolder, name: str) -> Iterator[StepMetrics]:
    """Yield all reports; those of logged steps go to the tracker `name`, too, from the first of several processes."""
    if rank() > 0:
        yield from reports
        return
    tracker: _Patient | None = None
    try:
        for report in reports:
            if tracker is None:
                tracker, every = _Patient(name, run, report.step), read_run_config(run.path).loop.log_every
            if report.step % every == 0 or report.val_loss is not None or report.step == 1:
                values = {NAMES[field]: getattr(report, field) for field in NAMES}
                tracker.add(report.step, {key: value for key, value in values.items() if value is not None})
            yield report
    finally:
        if tracker is not None:
            tracker.close()


class _Patient:
    """A tracker whose failure costs its own figures alone: training goes on without it."""

    def __init__(self, name: str, run: RunFolder, first_step: int) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        with self._left_out_if_it_fails():
            self._tracker = TRACKERS[name](run, first_step)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        if self._tracker is not None:
            with self._left_out_if_it_fails():
                self._tracker.add(step, figures)

    def close(self) -> None:
        if self._tracker is not None:
            with self._left_out_if_it_fails():
                self._tracker.close()

    @contextlib.contextmanager
    def _left_out_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - of a program that is not ours, and that may raise anything
            self._tracker = None
            said = " ".join(str(error).split()) or type(error).__name__
            note(f"{self._name} is left out from here on: {said}; metrics.jsonl has every figure")
