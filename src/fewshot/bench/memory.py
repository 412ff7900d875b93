"""Measure the memory of one training run from inside, to compare it with its plan.

One process of a run of a few steps; started by bench/plan.py, alone or by torchrun. What the memory allocator keeps for
later would count as used, so the environment must make it give memory back at once (`QUIET`). Linux only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from fewshot.model import gpt
from fewshot.model.config import GPTConfig
from fewshot.train import loop, run
from fewshot.train.build import Setup
from fewshot.train.config import OptimizerConfig
from fewshot.train.optim import Optimizers

N_STEPS = 2  # the second is measured: the first makes the moments
# Every block of 64 KB and more is mapped by itself and unmapped when freed; smaller ones are too few to matter.
QUIET = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def measure_run(given: dict[str, Any], folder: Path) -> dict[str, int]:
    """Train for two steps in a new folder and return bytes by kind, in the last step, on this process.

    `weights`, `gradients` and `optimizer` are sums over tensors. `held`, what the first forward pass leaves when its
    loss begins, and `peak`, the most at one moment, are resident memory beyond that before a model was there.
    """
    _warm_up()
    marks = Marks()
    originals = run.build, loop.compute_gradient, loop.update, gpt.mean_cross_entropy

    def build(*args: Any, **kwargs: Any) -> Setup:
        marks.before_model()
        return originals[0](*args, **kwargs)

    def compute_gradient(setup: Setup, *args: Any, **kwargs: Any) -> Any:
        marks.before_step()
        gradient = originals[1](setup, *args, **kwargs)
        marks.after_gradient(setup)
        return gradient

    def update(setup: Setup, *args: Any, **kwargs: Any) -> None:
        originals[2](setup, *args, **kwargs)
        marks.after_update(setup)

    def loss(*args: Any, **kwargs: Any) -> torch.Tensor:
        marks.before_loss()
        return originals[3](*args, **kwargs)

    names = ((run, "build"), (loop, "compute_gradient"), (loop, "update"), (gpt, "mean_cross_entropy"))
    for (module, name), wrapper in zip(names, (build, compute_gradient, update, loss), strict=True):
        setattr(module, name, wrapper)
    try:
        reports = run.start(given, folder, say=lambda line: None)
        for _ in range(N_STEPS):
            next(reports)
        return marks.measured
    finally:
        for (module, name), original in zip(names, originals, strict=True):
            setattr(module, name, original)


def _warm_up() -> None:
    """Load what the first step loads: libraries and their code would count as memory of the run."""
    model = gpt.GPT(GPTConfig(n_layers=1, d_model=64, n_heads=2, n_ctx=64, n_vocab=97))
    optimizers = Optimizers(model, OptimizerConfig())
    tokens = torch.randint(97, (2, 64))
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            model.loss(tokens, tokens).backward()
    optimizers.step(1.0)


class Marks:
    """Resident memory at the moments of a step that tell the kinds apart."""

    def __init__(self) -> None:
        self.base = self.started = 0
        self.measured: dict[str, int] = {}

    def before_model(self) -> None:
        """Note what the process has without a model."""
        self.base = resident("VmRSS")

    def before_step(self) -> None:
        """Start the high-water mark again."""
        Path("/proc/self/clear_refs").write_text("5")
        self.started = resident("VmRSS")
        self.measured = {}

    def before_loss(self) -> None:
        """Note what the first forward pass of a step holds; a stage of a pipeline may have no loss."""
        self.measured.setdefault("held", resident("VmRSS") - self.started)

    def after_gradient(self, setup: Setup) -> None:
        """Note the tensors that last."""
        weights = list(setup.model.parameters())
        self.measured["weights"] = sum(_local(weight).nbytes for weight in weights)
        self.measured["gradients"] = sum(_local(weight.grad).nbytes for weight in weights if weight.grad is not None)

    def after_update(self, setup: Setup) -> None:
        """Note the moments, and the most that the step held."""
        self.measured["optimizer"] = sum(piece.tensor.nbytes for piece in setup.optimizers.state())
        self.measured["peak"] = resident("VmHWM") - self.base


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor that may be divided."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def resident(field: str) -> int:
    """Return bytes of this process: "VmRSS", now, or "VmHWM", the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise AssertionError(f"the system does not tell {field}")


if __name__ == "__main__":
    measured_here = measure_run(json.loads(sys.argv[1]), Path(sys.argv[2]))
    Path(f"{sys.argv[3]}.{os.environ.get('RANK', '0')}").write_text(json.dumps(measured_here))
