"""One process of several that train the runs of a list, one after the other. Started by torchrun; see conftest.py."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

import fewshot.train.run as runs
from fewshot.base.dist import finish, rank
from fewshot.train.build import Setup

COLLECTIVES = ("all_reduce", "all_to_all_single", "all_gather_into_tensor", "reduce_scatter_tensor", "send", "recv")


def sha_by_piece(setup: Setup) -> dict[str, str]:
    """Return the hash of every piece of the weights that this process holds."""
    pieces = setup.optimizers.weights()
    return {piece.key: hashlib.sha256(piece.tensor.contiguous().numpy().tobytes()).hexdigest() for piece in pieces}


def main(cases: list[dict[str, Any]], out: Path) -> None:
    """Train each case and write what this process saw of it."""
    torch.set_num_threads(1)
    begin, seen = runs.train, {}

    def train(setup: Setup, *others: Any, **named: Any) -> Any:
        seen["initial"] = sha_by_piece(setup)
        yield from begin(setup, *others, **named)
        seen["final"] = sha_by_piece(setup)

    runs.train = train
    report = []
    for case in cases:
        run = Path(case["run"])
        if case.get("given") is not None:
            steps = runs.start(case["given"], run, say=print)
        else:
            steps = runs.resume(run, say=print, overrides=case.get("overrides"))
        metrics = list(steps)
        losses, norms = [m.loss for m in metrics], [m.grad_norm for m in metrics]
        report.append({"losses": losses, "norms": norms, "val_loss": metrics[-1].val_loss, **seen})
    (out / f"{rank()}.json").write_text(json.dumps(report))
    finish()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
