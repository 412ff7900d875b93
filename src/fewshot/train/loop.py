"""The training loop. In: a model, rows of tokens, a recipe. Out: checkpoints, metrics.jsonl, one report a step.

Everything a step does is a function of (seed, step): a run that was killed goes on from its last checkpoint and ends
with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import torch

from fewshot.base.files import to_json
from fewshot.base.interrupt import polite_stop
from fewshot.base.rng import seed_of
from fewshot.checkpoint.load import load_training
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.save import prune
from fewshot.dataset.loader import load_batch
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.model.gpt import GPT
from fewshot.train.config import LoopConfig, OptimizerConfig, ScheduleConfig
from fewshot.train.guard import Guard
from fewshot.train.keep import Keeper, counters_of
from fewshot.train.metrics import METRICS, StepMetrics, keep_until, read_metrics  # noqa: F401
from fewshot.train.optim import Optimizers
from fewshot.train.schedule import batch_rows, count_steps, lr_fraction
from fewshot.train.step import Precision, train_step


@dataclass(frozen=True)
class TrainState:
    """What a hook sees after a checkpoint was written."""

    model: GPT
    step: int
    tokens: int
    checkpoint: Path


def training(
    model: GPT,
    mixture: Mixture,
    validation: Packed | None,
    *,
    schedule: ScheduleConfig,
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    precision: Precision,
    micro_rows: int,
    run: Path,
    resume: Checkpoint | None = None,
    hooks: Sequence[Callable[[TrainState], None]] = (),
) -> Iterator[StepMetrics]:
    """Train `model` in place and yield a report after every step; the run folder is complete when it ends.

    Ctrl-C ends the iteration after a whole step and a checkpoint, without validation. A checkpoint is written before
    anything long, its line in metrics.jsonl after it. With `resume`, `model` must hold its weights; a validation that
    was due at that step and is not there is done first.
    """
    n_ctx, n_steps = model.config.n_ctx, count_steps(schedule, n_ctx=model.config.n_ctx)
    optimizers = Optimizers(model, optimizer)
    keeper = Keeper(
        run=run,
        model=model,
        optimizers=optimizers,
        validation=validation,
        loop=loop,
        micro_rows=micro_rows,
        guard=(guard := Guard(run=run, optimizer=optimizer)),
    )
    step, rows, seconds, undone = 0, 0, 0.0, None
    if resume is not None:
        optimizers.load_tensors(load_training(resume))
        step, (rows, seconds), undone = resume.step, counters_of(resume), keeper.left_undone(resume)
    keep_until(run / METRICS, step if undone is None else step - 1)
    with polite_stop() as stop, (run / METRICS).open("a", encoding="utf-8") as metrics:
        if undone is not None:
            report = keeper.validated(undone, stop) if keeper.is_validated(step, n_steps) else undone
            _log(report, metrics)
            yield report
            if stop.asked:
                return
        while step < n_steps:
            began = time.perf_counter()
            torch.manual_seed(seed_of("step", loop.seed, step))  # dropout belongs to the step, not to the process
            model.train()
            n_rows = batch_rows(schedule, rows * n_ctx, n_ctx=n_ctx)
            batch = load_batch(mixture, first_row=rows, n_rows=n_rows, with_documents=loop.document_masking)
            rows, step = rows + n_rows, step + 1
            fraction = lr_fraction(schedule, rows * n_ctx)
            loss, norm = train_step(
                model,
                optimizers,
                batch,
                micro_rows=micro_rows,
                clip=optimizer.clip,
                lr_fraction=fraction,
                precision=precision,
            )
            loss_nats, grad_norm = loss.item(), norm.item()
            guard.check("the loss", loss_nats, step=step)
            guard.check("the gradient's norm", grad_norm, step=step)
            elapsed = time.perf_counter() - began
            seconds += elapsed
            report = StepMetrics(
                step=step,
                n_steps=n_steps,
                tokens=rows * n_ctx,
                loss=loss_nats,
                lr_fraction=fraction,
                grad_norm=grad_norm,
                seconds=seconds,
                tokens_per_second=n_rows * n_ctx / elapsed,
            )
            due = step == n_steps or step % loop.checkpoint_every == 0
            path = keeper.saved(report, batch) if due or stop.asked else None  # before anything long
            if keeper.is_validated(step, n_steps) and not stop.asked:
                report = keeper.validated(report, stop, path)
            if stop.asked and path is None:
                path = keeper.saved(report, batch)
            if path is not None or report.val_loss is not None or step % loop.log_every == 0 or step == 1:
                _log(report, metrics)
            if path is not None:
                prune(run, keep=loop.keep_checkpoints)
                for hook in hooks:
                    hook(TrainState(model, step, rows * n_ctx, path))
            yield report
            if stop.asked and path is not None:
                return


def _log(report: StepMetrics, metrics: TextIO) -> None:
    metrics.write(to_json(asdict(report), where=METRICS) + "\n")
    metrics.flush()
