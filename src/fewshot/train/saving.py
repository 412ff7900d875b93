"""Checkpoints and validation of one run; nothing is saved of training that has diverged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.base.errors import NotFinite
from fewshot.base.interrupt import StopRequest
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, Checkpoint
from fewshot.checkpoint.writer import Writer
from fewshot.dataset.loader import Batch, ValidationBatches, load_batch
from fewshot.train.build import Setup
from fewshot.train.guard import Guard
from fewshot.train.parallel.sharded import micro_batches_of
from fewshot.train.records.counters import Counters, counters_of
from fewshot.train.records.metrics import MetricsFile, StepMetrics
from fewshot.train.records.receipt import keep_until
from fewshot.train.schedule import Step
from fewshot.train.step import Gradient, gradient_of, losses_of, totals


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes the checkpoints of one run, and validates its model."""

    run: RunFolder
    setup: Setup
    guard: Guard
    writer: Writer

    def save(self, metrics: StepMetrics, step: Step, chain: str) -> Path:
        """Start to write the checkpoint of this step and return its folder; weights of no use raise `Fault`.

        What training changes after this call is not in it. `writer` waits for it.
        """
        after = gradient_of_first_row(self.setup, step)
        self.guard.check("the loss after the update", after.loss, step=metrics.step)
        self.guard.check("the gradient's norm after the update", after.norm, step=metrics.step)
        self.guard.passed(metrics.step)
        counters = Counters(
            rows=step.end_row - self.guard.history.rows_left_out,
            tokens=metrics.tokens,
            seconds=metrics.seconds,
            chain=chain,
            guard=self.guard.history,
            report=metrics,
        )
        content = {WEIGHTS: self.setup.optimizers.weights(), TRAINING: self.setup.optimizers.state()}
        try:
            return self.writer.start(
                content,
                step=metrics.step,
                config=self.setup.config.model,
                counters=counters.plain(),
                is_final=not self.validation_is_due(metrics.step, metrics.n_steps),
            )
        except NotFinite as error:
            raise self.guard.broken(str(error), step=metrics.step) from None

    def validation_is_due(self, step: int, n_steps: int) -> bool:
        """Return whether the model is validated after this step."""
        is_due = step == n_steps or step % self.setup.config.loop.validate_every == 0
        return self.setup.validation is not None and is_due

    def validate(self, metrics: StepMetrics, stop: StopRequest, path: Path | None = None) -> StepMetrics:
        """Return the metrics with the validation loss, or as they were if someone asks to stop meanwhile.

        A loss that is not finite deletes the checkpoint at `path`, which is of this very step.
        """
        validation = self.setup.validation
        assert validation is not None
        loss = validation_loss(self.setup, stop)
        if loss is None:
            return metrics
        if path is not None and not math.isfinite(loss):
            self.writer.discard()
        self.guard.check("the validation loss", loss, step=metrics.step)
        self.writer.keep()
        n_bytes = sum(shard.n_bytes for shard in validation.shards)
        bits = loss * validation.n_tokens / n_bytes / math.log(2)
        return replace(metrics, val_loss=loss, val_bits_per_byte=bits)

    def keep_lines_until(self, step: int, checkpoint: Checkpoint | None) -> StepMetrics | None:
        """Drop what the run's files say of steps after `step`; return what `unlogged` does of its checkpoint."""
        keep_until(self.run.receipt, step)
        written = MetricsFile(self.run.metrics)
        unlogged = None if checkpoint is None else self.unlogged(checkpoint, written.rows)
        written.keep_until(step if unlogged is None else step - 1)
        return unlogged

    def unlogged(self, checkpoint: Checkpoint, rows: Iterable[Mapping[str, Any]]) -> StepMetrics | None:
        """Return the metrics of a checkpoint's step if the process ended before `rows` had their line or validation."""
        metrics = counters_of(checkpoint).report
        if metrics is None:  # of an older version, which wrote the line first
            return None
        logged = [row for row in rows if row["step"] == metrics.step]
        is_complete = logged and (
            logged[-1].get("val_loss") is not None or not self.validation_is_due(metrics.step, metrics.n_steps)
        )
        return None if is_complete else metrics


def gradient_of_first_row(setup: Setup, step: Step) -> Gradient:
    """Return the loss of the first row of a step's batch and its gradient's norm, in float32 and without dropout.

    They show whether the weights are of use: finite weights may be so huge that these are not finite.
    """
    setup.model.eval()
    masking = setup.config.loop.document_masking

    def batch_of(number: int) -> Batch:
        n_rows = 1 if number == 0 else 0
        return load_batch(setup.mixture, first_row=step.first_row, n_rows=n_rows, padded_to=1, with_documents=masking)

    with torch.compiler.set_stance("force_eager"):  # another shape than in training: not worth compiling for
        gradient = gradient_of(setup, batch_of, 1, n_tokens=setup.config.model.n_ctx)
    setup.optimizers.zero_grad()
    return gradient


def validation_loss(setup: Setup, stop: StopRequest | None = None) -> float | None:
    """Return mean nats a token over the validation rows, each token predicted once; None if stopped.

    Computed in float32, `micro_rows` rows at a time, by all processes together.
    """
    loop, layout = setup.config.loop, setup.layout
    assert setup.validation is not None
    setup.model.eval()
    batches = ValidationBatches(
        setup.validation,
        n_rows=min(setup.micro_rows, 64),
        max_rows=loop.validate_rows,
        with_documents=loop.document_masking,
    )
    mine = micro_batches_of(layout, len(batches))
    losses: list[Tensor] = []
    with torch.compiler.set_stance("force_eager"):  # other shapes than in training: not worth compiling for
        for first in range(0, len(mine), layout.pp):  # all stages are busy
            if stop is not None and layout.any(stop.asked):
                return None
            losses += losses_of(setup, batches.__getitem__, mine[first : first + layout.pp], n_tokens=1, backward=False)
    total, _ = totals(setup, losses, mine)
    return total / batches.n_targets
