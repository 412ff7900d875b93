"""The training loop. In: a `Setup` and a run folder. Out: checkpoints, metrics.jsonl, the metrics of every step.

Everything a step does is a function of (seed, step): a run that was killed goes on from its last checkpoint and ends
with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from fewshot.base.dist import from_first
from fewshot.base.interrupt import polite_stop
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.writer import Writer
from fewshot.train.build import Setup
from fewshot.train.records.metrics import StepMetrics, open_lines, write_line
from fewshot.train.records.receipt import Receipt
from fewshot.train.saving import Guard, Saver, chain_of, counters_of
from fewshot.train.schedule import count_steps, step_after
from fewshot.train.step import compute_gradient, update


def train(setup: Setup, run: RunFolder, *, resume: Checkpoint | None = None) -> Iterator[StepMetrics]:
    """Train the model in place and yield the metrics of every step; the run folder is complete when it ends.

    Ctrl-C ends the iteration after a whole step and a checkpoint, without validation. Writing of a checkpoint begins
    before anything long and goes on beside it. Its line in metrics.jsonl may come before or after it is whole: resuming
    drops the lines after the checkpoint that it goes on from, and writes that one's own if it is not there. With
    `resume`, `setup` was built from that checkpoint; a validation that was due at that step and is not there is done
    first.
    """
    loop, schedule, layout, n_ctx = setup.config.loop, setup.config.schedule, setup.layout, setup.config.model.n_ctx
    n_steps = count_steps(schedule, n_ctx=n_ctx)
    writer = Writer(run, keep=loop.keep_checkpoints)
    guard = Guard(run=run, optimizer=setup.config.optimizer, settle=writer.wait)
    saver = Saver(run=run, setup=setup, guard=guard, writer=writer)
    step, rows, seconds = 0, 0, 0.0
    if resume is not None:
        step, (rows, seconds) = resume.step, counters_of(resume)
    unlogged = from_first(lambda: saver.keep_lines_until(step, resume))
    chain = None if resume is None else chain_of(resume)
    with (
        polite_stop() as stop,
        writer,
        open_lines(run.metrics) as file,
        Receipt(run, setup.mixture, chain) as receipt,
    ):
        if unlogged is not None:
            metrics = saver.validate(unlogged, stop) if saver.validation_is_due(step, n_steps) else unlogged
            write_line(metrics, file)
            yield metrics
            if layout.any(stop.asked):
                return
        while step < n_steps:
            began = time.perf_counter()
            work = step_after(schedule, n_steps=step, n_rows=rows, n_ctx=n_ctx)
            gradient = compute_gradient(setup, work)
            rows, step = work.end_row, work.number
            guard.check("the loss", gradient.loss, step=step, updated=False)
            guard.check("the gradient's norm", gradient.norm, step=step, updated=False)
            update(setup, work, gradient)
            receipt.add(work, gradient)
            elapsed = time.perf_counter() - began
            seconds += elapsed
            metrics = StepMetrics(
                step=step,
                n_steps=n_steps,
                tokens=rows * n_ctx,
                loss=gradient.loss,
                lr_fraction=work.lr_fraction,
                grad_norm=gradient.norm,
                seconds=seconds,
                tokens_per_second=work.n_rows * n_ctx / elapsed,
            )
            due = step == n_steps or step % loop.checkpoint_every == 0
            stopping = layout.any(stop.asked)
            path = saver.save(metrics, work, receipt.chain) if due or stopping else None  # before anything long
            if saver.validation_is_due(step, n_steps) and not stopping:
                metrics = saver.validate(metrics, stop, path)
                stopping = layout.any(stop.asked)
            if stopping and path is None:
                path = saver.save(metrics, work, receipt.chain)
            if path is not None or metrics.val_loss is not None or step % loop.log_every == 0 or step == 1:
                write_line(metrics, file)
            yield metrics
            if stopping:
                return
