"""What a run is and how it was trained, for pages and cards. In: a run and its model. Out: an evaluated model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot.bench.hardware import hardware
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.dataset.prepare import DataConfig
from fewshot.evaluate.reports.page import EvaluatedModel
from fewshot.evaluate.reports.run_contents import evaluated_model
from fewshot.model.gpt import GPT
from fewshot.train.records.metrics import read_metrics
from fewshot.train.records.noise import noise_scale
from fewshot.train.run import read_run_config


def sources_of(data: DataConfig) -> list[str]:
    """Return the texts of a run by name, each with its weight."""
    return [f"{source.name} ({source.weight:g})" for source in data.sources]


def evaluated_model_of(
    folder: Path, model: GPT, checkpoint: Checkpoint, *, with_positions: bool = True
) -> EvaluatedModel:
    """Return what the run folder holds, with what training and this machine say of themselves."""
    run, training = RunFolder(folder), {}
    if run.config.is_file():
        config = read_run_config(folder)
        training["optimizer"] = config.optimizer.summary
        training["text"] = ", ".join(sources_of(config.data))
    metrics = read_metrics(run.metrics)
    if scale := noise_scale(metrics[len(metrics) // 2 :]):
        training["gradient noise scale"] = f"about {scale:,.0f} tokens, over the second half of the log"
    about: dict[str, Any] = {"metrics": metrics, "training": training, "machine": hardware()}
    return evaluated_model(run, model, checkpoint, with_positions=with_positions, **about)
