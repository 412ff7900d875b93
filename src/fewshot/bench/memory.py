"""Measure the memory of one training run from inside, to compare it with its plan.

One process of a run of a few steps; started by bench/plan.py, alone or by torchrun. What the memory allocator keeps for
later would count as used, so the environment must make it give memory back at once (`QUIET`). Linux only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from fewshot.base.config import from_plain
from fewshot.model import gpt
from fewshot.model.config import GPTConfig
from fewshot.train import loop, run
from fewshot.train.build import Setup
from fewshot.train.config import OptimizerConfig
from fewshot.train.optim import Optimizers
from fewshot.train.parallel import stages

MEMORY_MARK = Path("/proc/self/clear_refs")  # begins the high-water mark of this process again, on Linux
N_STEPS = 2  # the second is measured: the first makes the moments
# Every block of 64 KB and more is mapped by itself and unmapped when freed; smaller ones are too few to matter.
QUIET = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def measure_run(given: dict[str, Any], folder: Path) -> dict[str, int]:
    """Train for two steps in a new folder and return bytes by kind, in the last step, on this process.

    `weights` and `moments` are sums over tensors; so are `gradients`, but under FSDP, which keeps them elsewhere until
    they are added, they are what more is resident when the second loss of the step begins than when the first does.
    `activations` is what the first forward pass adds until its loss begins; a stage without a loss has none. `peak` is
    the most that is resident at a moment, beyond what was before there was a model; `beside` is the part of it that is
    there between two steps and is neither weights nor moments, such as places for what other processes send.
    """
    _warm_up(given)
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

    replaced = (
        (run, "build", build),
        (loop, "compute_gradient", compute_gradient),
        (loop, "update", update),
        (gpt, "mean_cross_entropy", loss),
        (stages, "mean_cross_entropy", loss),
    )
    for module, name, wrapper in replaced:
        setattr(module, name, wrapper)
    reports = run.start(given, folder, say=lambda line: None)
    for _ in range(N_STEPS):
        next(reports)
    return marks.measured


def _warm_up(given: dict[str, Any]) -> None:
    """Load what the first step loads: code, and kernels for these sizes, would count as memory of the run.

    A block has the sizes that it has under tensor parallelism.
    """
    config, tp = from_plain(GPTConfig, given["model"], where="model"), given.get("parallel", {}).get("tp", 1)
    share = {"n_heads": config.n_heads // tp, "d_head": config.head_width, "d_ff": config.ff_width // tp}
    config, how = dataclasses.replace(config, n_layers=1, **share), given["loop"]
    model = gpt.GPT(config)
    model.set_recompute(how["recompute"])
    optimizers = Optimizers(model, OptimizerConfig())
    tokens = torch.randint(config.n_vocab, (how["micro_rows"], config.n_ctx))
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how["precision"] == "bfloat16"):
            loss = model.loss(tokens, tokens)
        loss.backward()
    optimizers.step(1.0)


class Marks:
    """Resident memory at the moments of a step that tell the kinds apart."""

    def __init__(self) -> None:
        self.base = self.started = 0
        self.losses: list[int] = []
        self.measured: dict[str, int] = {}

    def before_model(self) -> None:
        """Note what the process has without a model."""
        self.base = resident("VmRSS")

    def before_step(self) -> None:
        """Start the high-water mark again."""
        MEMORY_MARK.write_text("5")
        self.started, self.losses = resident("VmRSS"), []

    def before_loss(self) -> None:
        """Note what there is when a loss begins; a stage of a pipeline may have none."""
        self.losses.append(resident("VmRSS"))

    def after_gradient(self, setup: Setup) -> None:
        """Note the tensors that last."""
        weights = list(setup.model.parameters())
        gradients = [_local(weight.grad).nbytes for weight in weights if weight.grad is not None]
        self.measured = {
            "weights": sum(_local(weight).nbytes for weight in weights),
            "gradients": self.losses[1] - self.losses[0] if setup.groups and self.losses else sum(gradients),
            "moments": sum(piece.tensor.nbytes for piece in setup.optimizers.state()),
        }
        if self.losses:
            self.measured["activations"] = self.losses[0] - self.started

    def after_update(self, setup: Setup) -> None:
        """Note the most that the step held, and what stays of it that is neither weights nor moments."""
        self.measured["peak"] = resident("VmHWM") - self.base
        self.measured["beside"] = self.started - self.base - self.measured["weights"] - self.measured["moments"]


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
