"""One process of several that train; the gradient of one of them becomes NaN in a step. Started by torchrun."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import fewshot.train.step as steps
from fewshot.base.dist import rank
from fewshot.base.errors import Diverged
from fewshot.train.run import start

words = json.loads(sys.argv[1])
out, add_tied_gradients, n_calls = Path(words["out"]), steps.add_tied_gradients, 0


def with_nan(*args: Any) -> None:
    """Stand where all gradients are there and nobody has looked at them."""
    global n_calls
    add_tied_gradients(*args)
    n_calls += 1
    if rank() == words["rank"] and n_calls == words["call"]:
        next(p for p in args[0].parameters() if p.grad is not None).grad.to_local()[0] = math.nan


steps.add_tied_gradients = with_nan
n_steps = 0
try:
    for _ in start(words["given"], out / "run", say=lambda line: None):
        n_steps += 1
except Diverged as error:
    (out / f"{rank()}.json").write_text(json.dumps([n_steps, str(error)]))
