"""Watches the figures of every step: a batch that breaks them is not learned from, and training that breaks goes back.

In: losses and norms that are the same on all processes, so that all decide alike. Out: whether a step counts; where to
go on after a fault. First one batch is skipped; after three in a row, or where the weights are of no use, training goes
on from the last checkpoint with the rows after the fault; after three such rewinds it ends with one line.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

from fewshot.base.dist import all_processes, from_first
from fewshot.base.errors import DamagedCheckpoint, Diverged
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import newest_whole
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.train.config import OptimizerConfig
from fewshot.train.records.counters import History, counters_of
from fewshot.train.schedule import Step
from fewshot.train.step import Gradient

WINDOW = 128  # losses that a loss is compared with
FEWEST = 64  # before there are so many nothing is taken for a spike
SIGMAS = 6
MAX_SKIPPED = 2  # in a row
MAX_REWINDS = 3  # without getting further than before


class Fault(Exception):
    """A figure that training cannot go on from: caught by `train`, which goes back or raises `Diverged`."""

    def __init__(self, what: str, *, step: int, n_updates: int) -> None:
        super().__init__(what)
        self.step, self.n_updates = step, n_updates  # what was seen when, and after how many changes of the weights


class Guard:
    """The judge of one run. `spike_factor`: see `LoopConfig`."""

    def __init__(self, run: RunFolder, optimizer: OptimizerConfig, *, spike_factor: float | None = None) -> None:
        self.history = History()
        self._run, self._optimizer, self._spike_factor = run, optimizer, spike_factor
        self._event: str | None = None  # a rewind that no step has told of yet
        self._end_row = 0  # of the training mixture: behind what was read last

    def judge(self, step: Step, gradient: Gradient) -> str | None:
        """Return why a step's batch is not learned from, or None if it is; too many in a row raise `Fault`."""
        self._end_row = step.end_row
        losses, reason = self.history.losses, self._reason(gradient)
        if reason is None:
            self.history = replace(self.history, losses=(*losses, gradient.loss)[-WINDOW:], skipped=0)
        elif self.history.skipped == MAX_SKIPPED:
            raise self._fault(f"{reason}, and {MAX_SKIPPED} steps before it were skipped", step.number, updated=False)
        else:
            self.history = replace(self.history, skipped=self.history.skipped + 1)
        return reason

    def check(self, what: str, value: float, *, step: int) -> None:
        """Raise `Fault` unless `value`, which is `what` after this step, is a finite number."""
        if not math.isfinite(value):
            raise self.broken(f"{what} is {value}", step=step)

    def broken(self, what: str, *, step: int) -> Fault:
        """Return the fault that the weights after this step show by `what`."""
        return self._fault(what, step, updated=self.history.skipped == 0)

    def passed(self, step: int) -> None:
        """Note that the weights after this step are good, and worth a checkpoint."""
        if step > self.history.furthest:
            self.history = replace(self.history, rewinds=0)

    def event(self, skipped: str | None) -> str | None:
        """Return what is to be told with this step's figures, and forget it."""
        events = [self._event, skipped and f"skipped, not learned from: {skipped}"]
        self._event = None
        return "; ".join(filter(None, events)) or None

    def way_back(self, fault: Fault) -> Checkpoint:
        """Return the checkpoint to go on from, and leave out the rows from there to the fault.

        Raises `Diverged` if there is none or if going back has not helped. Every process must call it.
        """
        rewinds = self.history.rewinds + 1
        from_first(lambda: None)  # then the checkpoint that the first process was writing is there for all
        try:
            checkpoint, damage = newest_whole(self._run, processes=all_processes())
        except DamagedCheckpoint:
            raise self._diverged(fault, "there is no earlier checkpoint") from None
        if rewinds > MAX_REWINDS:
            raise self._diverged(fault, f"the last good checkpoint is {checkpoint.path}")
        counters = counters_of(checkpoint)
        before = counters.guard.rows_left_out
        left_out = max(0, self._end_row - counters.rows - before)
        self.history = replace(
            counters.guard, skipped=0, rows_left_out=before + left_out, rewinds=rewinds, furthest=fault.step
        )
        self._event = (
            f"{damage + '; ' if damage else ''}went back to step {checkpoint.step:,}, because in step {fault.step:,} "
            f"{fault}; {left_out:,} rows are left out"
        )
        return checkpoint

    def _reason(self, gradient: Gradient) -> str | None:
        """Return what is wrong with a gradient, or None."""
        for what, value in (("the loss", gradient.loss), ("the gradient's norm", gradient.norm)):
            if not math.isfinite(value):
                return f"{what} is {value}"
        losses = self.history.losses
        if self._spike_factor is None or len(losses) < FEWEST:
            return None
        mean = statistics.fmean(losses)
        usual = max(self._spike_factor * mean, mean + SIGMAS * statistics.pstdev(losses, mean))
        if gradient.loss <= usual:
            return None
        return f"the loss is {gradient.loss:.4g}, after {len(losses)} steps of {mean:.4g} (--loop.spike_factor)"

    def _fault(self, what: str, step: int, *, updated: bool) -> Fault:
        return Fault(what, step=step, n_updates=step - 1 - self.history.skipped + updated)

    def _diverged(self, fault: Fault, last: str) -> Diverged:
        """Return the error that ends the run."""
        where = f", in a new folder or after deleting {self._run.path}" if not self._run.checkpoint_folders() else ""
        tried = f" after {self.history.rewinds} rewinds" if self.history.rewinds else ""
        return Diverged(
            f"training diverged{tried}: in step {fault.step:,} {fault}; {last}; "
            f"start again with a lower {self._option(fault.n_updates)}{where}"
        )

    def _option(self, n_updates: int) -> str:
        """Return the name of what most likely was too large, after so many updates."""
        if n_updates <= 0:
            return "model.init_std"
        has_matrix_lr = self._optimizer.name != "adamw"
        lr = max(self._optimizer.lr, self._optimizer.matrix_lr if has_matrix_lr else 0.0)
        if lr < 1 <= lr * self._optimizer.weight_decay:  # an update takes more than the whole weight away
            return "optimizer.weight_decay"
        return "optimizer.lr or optimizer.matrix_lr" if has_matrix_lr else "optimizer.lr"
