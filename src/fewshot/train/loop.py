"""The training loop. In: a model, rows of tokens, a recipe. Out: checkpoints, metrics.jsonl, one report a step.

Everything a step does is a function of (seed, step): a run that was killed goes on from its last checkpoint and ends
with the same bits.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fewshot.base.errors import BadFile, Diverged
from fewshot.base.files import write_text
from fewshot.base.interrupt import polite_stop
from fewshot.base.rng import seed_of
from fewshot.checkpoint.load import load_training
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.save import save
from fewshot.dataset.loader import load_batch, validation_batches
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.model.gpt import GPT
from fewshot.train.config import LoopConfig, OptimizerConfig, ScheduleConfig
from fewshot.train.optim import Optimizers
from fewshot.train.schedule import batch_rows, count_steps, lr_fraction
from fewshot.train.step import Precision, train_step

METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one step came to; losses in nats a token."""

    step: int  # steps done
    n_steps: int  # of the whole run
    tokens: int  # seen so far
    loss: float
    lr_fraction: float
    grad_norm: float  # before clipping
    seconds: float  # of training so far, validation and checkpoints left out
    tokens_per_second: float
    val_loss: float | None = None
    val_bits_per_byte: float | None = None


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
) -> Iterator[Report]:
    """Train `model` in place and yield a report after every step; the run folder is complete when it ends.

    Ctrl-C ends the iteration after a whole step and a checkpoint. With `resume`, `model` must hold its weights.
    """
    n_ctx, n_steps = model.config.n_ctx, count_steps(schedule, n_ctx=model.config.n_ctx)
    optimizers = Optimizers(model, optimizer)
    step, rows, seconds = 0, 0, 0.0
    if resume is not None:
        optimizers.load_tensors(load_training(resume))
        step, rows, seconds = resume.step, resume.counters["rows"], resume.counters["seconds"]
    _keep_metrics_until(run / METRICS, step)
    with polite_stop() as stop, (run / METRICS).open("a", encoding="utf-8") as metrics:
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
            loss_nats = loss.item()
            if not math.isfinite(loss_nats):
                raise Diverged(f"the loss of step {step} is {loss_nats}: start again with a lower optimizer.lr")
            elapsed = time.perf_counter() - began
            seconds += elapsed
            last = step == n_steps or stop.asked
            report = Report(
                step=step,
                n_steps=n_steps,
                tokens=rows * n_ctx,
                loss=loss_nats,
                lr_fraction=fraction,
                grad_norm=norm.item(),
                seconds=seconds,
                tokens_per_second=n_rows * n_ctx / elapsed,
                **_validate(model, validation, loop, micro_rows) if last or step % loop.validate_every == 0 else {},
            )
            if last or report.val_loss is not None or step % loop.log_every == 0 or step == 1:
                metrics.write(json.dumps(asdict(report)) + "\n")
                metrics.flush()
            if last or step % loop.checkpoint_every == 0:
                counters = {"rows": rows, "tokens": rows * n_ctx, "seconds": seconds}
                path = save(
                    run,
                    model,
                    step=step,
                    counters=counters,
                    training=optimizers.tensors(),
                    keep=loop.keep_checkpoints,
                )
                for hook in hooks:
                    hook(TrainState(model, step, rows * n_ctx, path))
            yield report
            if last:
                return


def _validate(model: GPT, validation: Packed | None, loop: LoopConfig, micro_rows: int) -> dict[str, float]:
    """`val_loss` and `val_bits_per_byte`, or nothing where there is no validation text."""
    if validation is None:
        return {}
    loss = validation_loss(
        model, validation, n_rows=micro_rows, max_rows=loop.validate_rows, document_masking=loop.document_masking
    )
    n_bytes = sum(shard.n_bytes for shard in validation.shards)
    return {"val_loss": loss, "val_bits_per_byte": loss * validation.n_tokens / n_bytes / math.log(2)}


@torch.no_grad()
def validation_loss(
    model: GPT, validation: Packed, *, n_rows: int, max_rows: int | None = None, document_masking: bool = False
) -> float:
    """Mean nats a token over the validation rows, in float32, each token predicted once."""
    was_training = model.training
    model.eval()
    device, total, count = model.wte.weight.device, 0.0, 0
    batches = validation_batches(validation, n_rows=min(n_rows, 64), max_rows=max_rows, with_documents=document_masking)
    with torch.compiler.set_stance("force_eager"):  # other shapes than in training: not worth compiling for
        for batch in batches:
            documents = None if batch.documents is None else batch.documents.to(device)
            loss = model.loss(batch.tokens.to(device), batch.targets.to(device), documents)
            total += loss.item() * batch.targets.numel()
            count += batch.targets.numel()
    model.train(was_training)
    return total / count


def _keep_metrics_until(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again; a half-written last line goes with them."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] <= step))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that was cut by a kill is left out, no file gives no rows."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    try:
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    except json.JSONDecodeError:
        raise BadFile(f"{path} holds lines that are not JSON: it was not written by fewshot") from None
