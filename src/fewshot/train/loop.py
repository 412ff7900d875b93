"""The training loop. In: a `Setup` and a run folder. Out: checkpoints, metrics.jsonl, the metrics of every step.

Everything a step does is a function of (seed, step): a run that was killed goes on from its last checkpoint and ends
with the same bits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator

import torch

from fewshot.base.dist import from_first
from fewshot.base.interrupt import StopRequest, polite_stop
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.writer import Writer
from fewshot.model.gpt import GPT
from fewshot.train.build import Setup, restore
from fewshot.train.guard import Fault, Guard
from fewshot.train.records.counters import Counters, counters_of
from fewshot.train.records.metrics import StepMetrics, finite, open_lines, write_line
from fewshot.train.records.noise import noise_and_signal
from fewshot.train.records.receipt import Receipt
from fewshot.train.saving import Saver
from fewshot.train.schedule import count_steps, step_after
from fewshot.train.step import compute_gradient, update

Watch = Callable[[GPT, StepMetrics], None]  # looks at the model after a step; may leave it in evaluation mode


def train(
    setup: Setup, run: RunFolder, *, resume: Checkpoint | None = None, watch: Watch | None = None
) -> Iterator[StepMetrics]:
    """Train the model in place and yield the metrics of every step; the run folder is complete when it ends.

    Ctrl-C ends the iteration after a whole step and a checkpoint, without validation. Writing of a checkpoint begins
    before anything long and goes on beside it. Its line in metrics.jsonl may come before or after it is whole: resuming
    drops the lines after the checkpoint that it goes on from, and writes that one's own if it is not there. With
    `resume`, `setup` was built from that checkpoint; a validation that was due at that step and is not there is done
    first. `watch` is called after every step. After a fault the steps since the last checkpoint are done again, with
    other rows: see guard.py.
    """
    config = setup.config
    guard = Guard(run, config.optimizer, spike_factor=config.loop.spike_factor)
    if resume is not None:
        guard.history = counters_of(resume).guard
    with polite_stop() as stop:
        while True:
            try:
                with contextlib.closing(_train(setup, run, guard, stop, resume)) as steps:
                    for metrics in steps:
                        if watch is not None:
                            with torch.compiler.set_stance("force_eager"):  # other shapes than in training
                                watch(setup.model, metrics)
                        yield metrics
                return
            except Fault as fault:
                resume = guard.way_back(fault)
                restore(setup.optimizers, resume)


def _train(
    setup: Setup, run: RunFolder, guard: Guard, stop: StopRequest, resume: Checkpoint | None
) -> Generator[StepMetrics, None, None]:
    """Do what `train` does, up to the first fault."""
    loop, schedule, layout, n_ctx = setup.config.loop, setup.config.schedule, setup.layout, setup.config.model.n_ctx
    n_steps = count_steps(schedule, n_ctx=n_ctx)
    writer = Writer(run, keep=loop.keep_checkpoints)
    saver = Saver(run=run, setup=setup, guard=guard, writer=writer)
    step, done = (0, Counters(rows=0, seconds=0.0)) if resume is None else (resume.step, counters_of(resume))
    rows, seconds = done.rows, done.seconds
    unlogged = from_first(lambda: saver.keep_lines_until(step, resume))
    with writer, open_lines(run.metrics) as file, Receipt(run, setup.mixture, done.chain) as receipt:
        if unlogged is not None:
            metrics = saver.validate(unlogged, stop) if saver.validation_is_due(step, n_steps) else unlogged
            write_line(metrics, file)
            yield metrics
            if layout.any(stop.asked):
                return
        while step < n_steps:
            began, left_out = time.perf_counter(), guard.history.rows_left_out
            work = step_after(schedule, n_steps=step, n_rows=rows, n_ctx=n_ctx, n_left_out=left_out)
            gradient = compute_gradient(setup, work)
            step, rows = work.number, rows + work.n_rows
            skipped = guard.judge(work, gradient)
            if skipped is None:
                update(setup, work, gradient)
            else:
                setup.optimizers.zero_grad()
            receipt.add(work, gradient, skipped=skipped is not None, n_left_out=left_out)
            noise, signal = noise_and_signal(
                gradient.norm, gradient.first_norm, n_tokens=work.n_rows * n_ctx, small_tokens=setup.micro_rows * n_ctx
            )
            elapsed = time.perf_counter() - began
            seconds += elapsed
            metrics = StepMetrics(
                step=step,
                n_steps=n_steps,
                tokens=rows * n_ctx,
                loss=finite(gradient.loss),
                lr_fraction=work.lr_fraction,
                grad_norm=finite(gradient.norm),
                seconds=seconds,
                tokens_per_second=work.n_rows * n_ctx / elapsed,
                grad_noise=noise,
                grad_signal=signal,
                event=guard.event(skipped),
            )
            due = step == n_steps or step % loop.checkpoint_every == 0
            stopping = layout.any(stop.asked)
            path = saver.save(metrics, work, receipt.chain) if due or stopping else None  # before anything long
            if saver.validation_is_due(step, n_steps) and not stopping:
                metrics = saver.validate(metrics, stop, path)
                stopping = layout.any(stop.asked)
            if stopping and path is None:
                path = saver.save(metrics, work, receipt.chain)
            if path or metrics.val_loss is not None or metrics.event or step % loop.log_every == 0 or step == 1:
                write_line(metrics, file)
            yield metrics
            if stopping:
                return
