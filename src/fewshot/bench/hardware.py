"""What a figure was measured on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from fewshot.base.machine import n_cores, processor_name


def hardware() -> dict[str, str | int]:
    """Return the processor, cores, threads and versions, to stand beside every stored figure."""
    return {
        "processor": processor_name(),
        "cores": n_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": version("torch"),
        "fewshot": version("fewshot"),
    }
