"""What a run was trained on. In: a run folder. Out: its `data` section, with which its tokens are loaded."""

from __future__ import annotations

from fewshot.base.config import from_plain
from fewshot.checkpoint.folder import RunFolder
from fewshot.dataset.prepare import DataConfig


def read_data_config(run: RunFolder) -> DataConfig:
    """Return the `data` section of the run's configuration; a folder without one raises `BadFile`."""
    return from_plain(DataConfig, run.read_config().get("data", {}), where=f"{run.config}.data")
