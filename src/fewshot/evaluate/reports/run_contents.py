"""What a run folder holds, as a page shows it. In: a run with its newest model. Out: an evaluated model.

How a run was trained is told by the caller, in words: evaluation reads what training left on disk and knows no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile, FewshotError
from fewshot.base.log import note
from fewshot.checkpoint.data import read_data_config
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import Checkpoint, read_unverified
from fewshot.dataset.prepare import Tokens, load_validation, validation_rows
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.reports.figures import Metrics
from fewshot.evaluate.reports.page import EvaluatedModel
from fewshot.evaluate.scoring.loss_by_position import PositionLoss, loss_by_position, rows_apart
from fewshot.evaluate.store.read import newest, read_steps
from fewshot.model.gpt import GPT

POSITION_TOKENS = 1 << 16  # of held-out text, for the loss against position


def evaluated_model(
    run: RunFolder,
    model: GPT,
    checkpoint: Checkpoint,
    *,
    metrics: Metrics,
    training: Mapping[str, str],
    machine: Mapping[str, str | int],
    with_positions: bool = True,
) -> EvaluatedModel:
    """Return what the run folder holds; with the loss against position that its newest model has now, if it is wanted.

    `metrics` are the rows of its metrics.jsonl, `training` is said of how it was trained, `machine` of the one in use.
    """
    check_metrics(metrics, run.metrics)
    by_step = read_steps(run.evaluations, _weights_by_step(checkpoint))
    n_parameters = sum(p.numel() for p in model.parameters())
    summary = {**_shape(checkpoint, n_parameters), **training}
    if metrics:
        summary["training"] = f"{metrics[-1]['tokens']:,} tokens in {metrics[-1]['seconds']:.0f} s"
    summary["machine"] = ", ".join(f"{key} {value}" for key, value in machine.items())
    return EvaluatedModel(
        name=run.path.resolve().name,
        n_parameters=n_parameters,
        summary=summary,
        metrics=metrics,
        results=newest(by_step),
        by_step=by_step,
        positions=_positions(run, model) if with_positions else [],
    )


def check_metrics(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Raise `BadFile` for a row of metrics that lacks a number that the page needs."""
    for number, row in enumerate(rows, start=1):
        wrong = [name for name in ("tokens", "seconds") if not isinstance(row.get(name), (int, float))]
        wrong += [name for name in ("loss", "val_loss") if not isinstance(row.get(name), (int, float, type(None)))]
        if wrong:
            raise BadFile(f"{path}: row {number} has no number {wrong[0]!r}: correct or delete that line")


def _weights_by_step(checkpoint: Checkpoint) -> dict[int, str]:
    """Return the weights of every checkpoint beside the newest, by step; unverified."""
    weights = {checkpoint.step: checkpoint.weights}
    for path in RunFolder(checkpoint.path.parent.parent).checkpoint_folders():
        try:
            other = read_unverified(path)
            weights.setdefault(other.step, other.weights)
        except FewshotError:  # a damaged one is no reason not to report on the others
            continue
    return weights


def _shape(checkpoint: Checkpoint, n_parameters: int) -> dict[str, str]:
    """Return what the model is, in words."""
    shape = checkpoint.config
    return {
        "parameters": f"{n_parameters:,}",
        "shape": f"{shape.n_layers} layers, d_model {shape.d_model}, {shape.n_heads} heads of {shape.head_width}",
        "context": f"{shape.n_ctx:,} tokens",
        "attention": shape.pattern,
        "vocabulary": f"{shape.n_vocab:,}",
        "step": f"{checkpoint.step:,}",
    }


def _positions(run: RunFolder, model: GPT) -> list[PositionLoss]:
    """Return loss against position on the run's held-out text; nothing where its tokens are gone."""
    if not run.config.is_file() or not run.data.is_dir():
        return []
    data = read_data_config(run)
    try:
        tokens = Tokens((), load_validation(data, run.data))
    except BadFile as error:
        note(f"the loss against position is not shown: {error}")
        return []
    rows = validation_rows(tokens, n_ctx=model.config.n_ctx, say=lambda line: None)
    return [] if rows is None else loss_by_position(GPTLanguageModel(model), rows_apart(rows, n_tokens=POSITION_TOKENS))
