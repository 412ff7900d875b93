"""Checkpoints and validation of one run; nothing is saved of training that has diverged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fewshot.base.config import cast, from_plain
from fewshot.base.errors import BadValue, DamagedCheckpoint, Diverged, NotFinite
from fewshot.base.interrupt import StopRequest
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.save import discard, save
from fewshot.dataset.loader import load_batch, validation_batches
from fewshot.dataset.pack import Packed
from fewshot.model.gpt import GPT
from fewshot.train.build import Setup
from fewshot.train.config import OptimizerConfig
from fewshot.train.metrics import StepMetrics
from fewshot.train.schedule import Step
from fewshot.train.step import loss_of


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Notices figures that are not finite, and says what to change."""

    run: RunFolder
    optimizer: OptimizerConfig

    def check(self, what: str, value: float, *, step: int, updated: bool) -> None:
        """Raise `Diverged` unless `value`, which is `what` of this step, is a finite number.

        `updated` says whether the weights had been changed in this step when it was computed.
        """
        if not math.isfinite(value):
            raise self.diverged(f"{what} is {value}", step=step, updated=updated)

    def diverged(self, what: str, *, step: int, updated: bool) -> Diverged:
        """Return the error that tells `what` is not finite in this step, before or after the weights were `updated`."""
        checkpoints = self.run.checkpoint_folders()
        last = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no earlier checkpoint"
        where = "" if checkpoints else f", in a new folder or after deleting {self.run.path}"
        option = self._option(step - 1 + updated)
        advice = f"start again with a lower {option}{where}"
        return Diverged(f"training diverged: in step {step:,} {what}; {last}; {advice}")

    def _option(self, n_updates: int) -> str:
        """Return the name of what most likely was too large, after so many updates."""
        if n_updates == 0:
            return "model.init_std"
        has_matrix_lr = self.optimizer.name != "adamw"
        lr = max(self.optimizer.lr, self.optimizer.matrix_lr if has_matrix_lr else 0.0)
        if lr < 1 <= lr * self.optimizer.weight_decay:  # an update takes more than the whole weight away
            return "optimizer.weight_decay"
        return "optimizer.lr or optimizer.matrix_lr" if has_matrix_lr else "optimizer.lr"


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes the checkpoints of one run, and validates its model."""

    run: RunFolder
    setup: Setup
    guard: Guard

    def save(self, metrics: StepMetrics, step: Step) -> Path:
        """Write the checkpoint of this step and return its folder; weights of no use raise `Diverged`."""
        loss, norm = loss_of_first_row(self.setup, step)
        self.guard.check("the loss after the update", loss, step=metrics.step, updated=True)
        self.guard.check("the gradient's norm after the update", norm, step=metrics.step, updated=True)
        counters = {
            "rows": step.end_row,
            "tokens": metrics.tokens,
            "seconds": metrics.seconds,
            "report": asdict(metrics),  # its line in metrics.jsonl is written later
        }
        try:
            return save(
                self.run.path,
                self.setup.model,
                step=metrics.step,
                counters=counters,
                training=self.setup.optimizers.tensors(),
            )
        except NotFinite as error:
            raise self.guard.diverged(str(error), step=metrics.step, updated=True) from None

    def validation_is_due(self, step: int, n_steps: int) -> bool:
        """Return whether the model is validated after this step."""
        is_due = step == n_steps or step % self.setup.config.loop.validate_every == 0
        return self.setup.validation is not None and is_due

    def validate(self, metrics: StepMetrics, stop: StopRequest, path: Path | None = None) -> StepMetrics:
        """Return the metrics with the validation loss, or as they were if someone asks to stop meanwhile.

        A loss that is not finite deletes the checkpoint at `path`, which is of this very step.
        """
        validation, loop = self.setup.validation, self.setup.config.loop
        assert validation is not None
        loss = validation_loss(
            self.setup.model,
            validation,
            n_rows=loop.micro_rows or 1,
            max_rows=loop.validate_rows,
            document_masking=loop.document_masking,
            stop=stop,
        )
        if loss is None:
            return metrics
        if path is not None and not math.isfinite(loss):
            discard(path)
        self.guard.check("the validation loss", loss, step=metrics.step, updated=True)
        n_bytes = sum(shard.n_bytes for shard in validation.shards)
        bits = loss * validation.n_tokens / n_bytes / math.log(2)
        return replace(metrics, val_loss=loss, val_bits_per_byte=bits)

    def unlogged(self, checkpoint: Checkpoint, rows: Iterable[Mapping[str, Any]]) -> StepMetrics | None:
        """Return the metrics of a checkpoint's step if the process ended before `rows` had their line or validation."""
        plain = checkpoint.counters.get("report")
        if plain is None:  # of an older version, which wrote the line first
            return None
        try:
            metrics = from_plain(StepMetrics, plain, where="counters.report")
        except BadValue as error:
            raise DamagedCheckpoint(f"{checkpoint.path}: {error}") from None
        logged = [row for row in rows if row["step"] == metrics.step]
        is_complete = logged and (
            logged[-1].get("val_loss") is not None or not self.validation_is_due(metrics.step, metrics.n_steps)
        )
        return None if is_complete else metrics


def counters_of(checkpoint: Checkpoint) -> tuple[int, float]:
    """Return the rows seen and the seconds trained when a checkpoint was written."""
    try:
        rows, seconds = (checkpoint.counters.get(name) for name in ("rows", "seconds"))
        return cast(rows, int, "counters.rows"), cast(seconds, float, "counters.seconds")
    except BadValue as error:
        raise DamagedCheckpoint(f"{checkpoint.path}: {error}") from None


def loss_of_first_row(setup: Setup, step: Step) -> tuple[float, float]:
    """Return the loss of the first row of a step's batch and its gradient's norm, without dropout.

    They show whether the weights are of use: finite weights may be so huge that these are not finite.
    """
    model, masking = setup.model.eval(), setup.config.loop.document_masking
    batch = load_batch(setup.mixture, first_row=step.first_row, n_rows=1, with_documents=masking)
    with torch.compiler.set_stance("force_eager"):  # another shape than in training: not worth compiling for
        loss = loss_of(model, batch, n_tokens=batch.targets.numel())
        loss.backward()
    norm = setup.optimizers.squared_norm().sqrt()
    setup.optimizers.zero_grad()
    return loss.item(), norm.item()


@torch.no_grad()
def validation_loss(
    model: GPT,
    validation: Packed,
    *,
    n_rows: int,
    max_rows: int | None = None,
    document_masking: bool = False,
    stop: StopRequest | None = None,
) -> float | None:
    """Return mean nats a token over the validation rows, each token predicted once; None if stopped.

    Computed in float32, `n_rows` rows at a time.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    batches = validation_batches(validation, n_rows=min(n_rows, 64), max_rows=max_rows, with_documents=document_masking)
    with torch.compiler.set_stance("force_eager"):  # other shapes than in training: not worth compiling for
        for batch in batches:
            if stop is not None and stop.asked:
                return None
            total += loss_of(model, batch, n_tokens=1).item()
            count += batch.targets.numel()
    model.train(was_training)
    return total / count
