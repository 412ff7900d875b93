"""What is kept of a step: its checkpoint, its validation loss, its line of figures; nothing that is not finite."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from fewshot.base.config import cast, from_plain
from fewshot.base.errors import BadValue, DamagedCheckpoint, NotFinite
from fewshot.base.interrupt import StopRequest
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.save import discard, save
from fewshot.dataset.loader import Batch, validation_batches
from fewshot.dataset.pack import Packed
from fewshot.model.gpt import GPT
from fewshot.train.config import LoopConfig
from fewshot.train.guard import Guard, look_at_one_row
from fewshot.train.metrics import METRICS, StepMetrics, read_metrics
from fewshot.train.optim import Optimizers


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Writes checkpoints and validates, for one run."""

    run: Path
    model: GPT
    optimizers: Optimizers
    validation: Packed | None
    loop: LoopConfig
    micro_rows: int
    guard: Guard

    def saved(self, report: StepMetrics, batch: Batch) -> Path:
        """Write the checkpoint of this step; `Diverged` if its weights are good for nothing."""
        loss, norm = look_at_one_row(self.model, batch)
        self.guard.check("the loss after the update", loss, step=report.step)
        self.guard.check("the gradient's norm after the update", norm, step=report.step)
        counters = {
            "rows": report.tokens // self.model.config.n_ctx,
            "tokens": report.tokens,
            "seconds": report.seconds,
            "report": asdict(report),  # its line in metrics.jsonl is written later
        }
        try:
            return save(self.run, self.model, step=report.step, counters=counters, training=self.optimizers.tensors())
        except NotFinite as error:
            raise self.guard.diverged(str(error), step=report.step, updated=True) from None

    def is_validated(self, step: int, n_steps: int) -> bool:
        """Return whether validation is due after this step."""
        return self.validation is not None and (step == n_steps or step % self.loop.validate_every == 0)

    def validated(self, report: StepMetrics, stop: StopRequest, path: Path | None = None) -> StepMetrics:
        """Return the report with its validation loss, or as it was if someone asks to stop meanwhile.

        A loss that is not finite takes the checkpoint at `path`, which is of this very step, with it.
        """
        assert self.validation is not None
        loss = validation_loss(
            self.model,
            self.validation,
            n_rows=self.micro_rows,
            max_rows=self.loop.validate_rows,
            document_masking=self.loop.document_masking,
            stop=stop,
        )
        if loss is None:
            return report
        if path is not None and not math.isfinite(loss):
            discard(path)
        self.guard.check("the validation loss", loss, step=report.step)
        n_bytes = sum(shard.n_bytes for shard in self.validation.shards)
        bits = loss * self.validation.n_tokens / n_bytes / math.log(2)
        return replace(report, val_loss=loss, val_bits_per_byte=bits)

    def left_undone(self, checkpoint: Checkpoint) -> StepMetrics | None:
        """Return the report of a checkpoint's step, if the process ended before its line or its validation was
        written.
        """
        plain = checkpoint.counters.get("report")
        if plain is None:  # of an older version, which wrote the line first
            return None
        try:
            report = from_plain(StepMetrics, plain, where="counters.report")
        except BadValue as error:
            raise DamagedCheckpoint(f"{checkpoint.path}: {error}") from None
        rows = [row for row in read_metrics(self.run / METRICS) if row["step"] == report.step]
        is_complete = rows and (
            rows[-1].get("val_loss") is not None or not self.is_validated(report.step, report.n_steps)
        )
        return None if is_complete else report


def counters_of(checkpoint: Checkpoint) -> tuple[int, float]:
    """Return rows seen and seconds trained when it was written."""
    try:
        rows, seconds = (checkpoint.counters.get(name) for name in ("rows", "seconds"))
        return cast(rows, int, "counters.rows"), cast(seconds, float, "counters.seconds")
    except BadValue as error:
        raise DamagedCheckpoint(f"{checkpoint.path}: {error}") from None


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
    """Return mean nats a token over the validation rows, in float32, each token predicted once; None if asked to
    stop.
    """
    was_training = model.training
    model.eval()
    device, total, count = model.wte.weight.device, 0.0, 0
    batches = validation_batches(validation, n_rows=min(n_rows, 64), max_rows=max_rows, with_documents=document_masking)
    with torch.compiler.set_stance("force_eager"):  # other shapes than in training: not worth compiling for
        for batch in batches:
            if stop is not None and stop.asked:
                return None
            documents = None if batch.documents is None else batch.documents.to(device)
            loss = model.loss(batch.tokens.to(device), batch.targets.to(device), documents)
            total += loss.item() * batch.targets.numel()
            count += batch.targets.numel()
    model.train(was_training)
    return total / count
