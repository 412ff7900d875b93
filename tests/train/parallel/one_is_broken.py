"""One process of several that train; what one of them computes is broken in some steps. Started by torchrun."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import fewshot.train.loop as loop
import fewshot.train.step as steps
from fewshot.base.dist import rank
from fewshot.base.errors import Diverged
from fewshot.train.build import Setup
from fewshot.train.parallel.sharded import add_up
from fewshot.train.parallel.stages import add_tied_gradients
from fewshot.train.run import start

words = json.loads(sys.argv[1])
out = Path(words["out"])
n_gradients = n_updates = 0


def is_broken(n: int) -> bool:
    return rank() == words["rank"] and n in words["calls"]


def broken_losses(*args: Any) -> Sequence[Tensor]:
    losses = add_up(*args)
    return [loss * 10 for loss in losses] if is_broken(n_gradients + 1) else losses


def broken_gradient(model: Any, layout: Any) -> None:
    """Stand where all gradients are there and nobody has looked at them."""
    global n_gradients
    add_tied_gradients(model, layout)
    n_gradients += model.training
    if model.training and is_broken(n_gradients) and words["what"] == "gradient":
        next(p for p in model.parameters() if p.grad is not None).grad.to_local()[0] = math.nan


def broken_moment(setup: Setup, *args: Any) -> None:
    global n_updates
    n_updates += 1
    if is_broken(n_updates):
        moments = [piece.tensor for piece in setup.optimizers.state() if piece.name.endswith("/exp_avg")]
        next(moment for moment in moments if moment.numel()).view(-1)[0] = math.nan
    steps.update(setup, *args)


steps.add_tied_gradients = broken_gradient
if words["what"] == "loss":
    steps.add_up = broken_losses
if words["what"] == "moment":
    loop.update = broken_moment
seen, error = [], ""
try:
    for report in start(words["given"], out / "run", say=lambda line: None):
        seen.append([report.step, report.loss, report.event])
except Diverged as diverged:
    error = str(diverged)
(out / f"{rank()}.json").write_text(json.dumps([seen, error]))
