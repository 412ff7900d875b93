"""What a run is and how it was trained, for pages and cards. In: a run and its model. Out: an evaluated model."""

from __future__ import annotations

from pathlib import Path

from fewshot.bench.hardware import hardware
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.evaluate.reports.page import EvaluatedModel
from fewshot.evaluate.reports.run_contents import evaluated_model
from fewshot.model.gpt import GPT
from fewshot.train.records.metrics import read_metrics
from fewshot.train.records.noise import noise_scale
from fewshot.train.run import read_run_config


def evaluated_model_of(folder: Path, model: GPT, checkpoint: Checkpoint) -> EvaluatedModel:
    """Return what the run folder holds, with what training and this machine say of themselves."""
    run, training = RunFolder(folder), {}
    if run.config.is_file():
        config = read_run_config(folder)
        training["optimizer"] = config.optimizer.summary
        training["text"] = ", ".join(f"{source.name} ({source.weight:g})" for source in config.data.sources)
    metrics = read_metrics(run.metrics)
    if scale := noise_scale(metrics[len(metrics) // 2 :]):
        training["gradient noise scale"] = f"about {scale:,.0f} tokens, over the second half of the log"
    return evaluated_model(run, model, checkpoint, metrics=metrics, training=training, machine=hardware())
