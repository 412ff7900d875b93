"""`torch.compile` of one block, shared by all layers: a deep model compiles as fast as a shallow one."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import torch

from fewshot.model.gpt import GPT


def compiler_problem(device: str) -> str | None:
    """Why `torch.compile` cannot work here, or None. On a CPU it needs a C++ compiler and Python's headers."""
    if device != "cpu":
        return None
    candidates = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not any(shutil.which(name) for name in candidates if name):
        return "no C++ compiler (g++ or clang++) on the PATH"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.is_file() else f"Python's headers are missing ({header})"


def compile_blocks(model: GPT) -> None:
    """Compile every block in place. Blocks with the same pattern share one compiled graph."""
    schedule = model.config.schedule()
    n_patterns = len({schedule.for_layer(i) for i in range(model.config.n_layers)})
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 8 * n_patterns)
    for block in model.h:
        block.compile(dynamic=False)
