"""Compute steps of a run again, and compare them with its receipt. In: a run folder. Out: steps; nothing is written.

On the same machine, with the same versions and number of threads, a step gives the same bits: one that does not was
computed wrongly then or now, or its checkpoint, text or code has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewshot.base.errors import BadValue, DamagedCheckpoint
from fewshot.checkpoint.folder import RunFolder, step_of
from fewshot.checkpoint.load import newest_whole
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.dataset.prepare import Say, load_tokens, training_mixture
from fewshot.train.build import build
from fewshot.train.config import ParallelConfig
from fewshot.train.parallel.mesh import layout_of
from fewshot.train.records.counters import counters_of
from fewshot.train.records.receipt import Entry, Verified, read_receipt, verify
from fewshot.train.run import read_run_config
from fewshot.train.schedule import step_after
from fewshot.train.step import compute_gradient, update


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A step that was computed again."""

    logged: Entry
    loss: float
    grad_norm: float

    @property
    def is_same(self) -> bool:
        """Whether the loss and the norm of the gradient have the logged bits."""
        return (self.loss.hex(), self.grad_norm.hex()) == (self.logged.loss, self.logged.grad_norm)


def verify_run(folder: Path) -> Verified:
    """Check a run's receipt against its configuration and tokens; nothing is trained, and nothing written."""
    run, config = RunFolder(folder), read_run_config(folder)
    tokens = load_tokens(config.data, run.data)
    mixture = training_mixture(config.data, tokens, n_ctx=config.model.n_ctx, seed=config.loop.seed)
    return verify(run, mixture, config.schedule)


def replay(folder: Path, step: int, *, say: Say) -> Iterator[Replayed]:
    """Compute a run's steps again up to `step`, from its nearest checkpoint before it, or else from its beginning.

    Raises `BadValue` for a step that the run has no line of.
    """
    run, config = RunFolder(folder), read_run_config(folder)
    logged = {entry.step: entry for entry in read_receipt(run.receipt)}
    if step not in logged:
        known = f"it has {min(logged):,} to {max(logged):,}" if logged else "it has none"
        raise BadValue(f"step {step:,} is not in {run.receipt}: {known}")
    parallel = ParallelConfig(exact=True) if config.parallel.exact else config.parallel  # exact: in any layout
    tokens, layout = load_tokens(config.data, run.data), layout_of(parallel)
    checkpoint = _nearest(run, step, say)
    setup = build(config, tokens, layout=layout, checkpoint=checkpoint, say=say)
    number, rows = (0, 0) if checkpoint is None else (checkpoint.step, counters_of(checkpoint).rows)
    say(f"replaying steps {number + 1:,} to {step:,}")
    while number < step:
        entry = logged.get(number + 1)
        n_left_out = 0 if entry is None else entry.n_left_out
        work = step_after(config.schedule, n_steps=number, n_rows=rows, n_ctx=config.model.n_ctx, n_left_out=n_left_out)
        gradient = compute_gradient(setup, work)
        if entry is not None:
            yield Replayed(logged=entry, loss=gradient.loss, grad_norm=gradient.norm)
        if entry is not None and entry.skipped:
            setup.optimizers.zero_grad()
        else:
            update(setup, work, gradient)
        number, rows = work.number, rows + work.n_rows


def _nearest(run: RunFolder, step: int, say: Say) -> Checkpoint | None:
    """Return the newest whole checkpoint before a step; None if there is none."""
    if not any((step_of(folder.name) or 0) < step for folder in run.checkpoint_folders()):
        return None
    try:
        checkpoint, damage = newest_whole(run, before=step)
    except DamagedCheckpoint as error:
        say(f"{error}; starting from step 0 instead")
        return None
    if damage:
        say(damage)
    return checkpoint
