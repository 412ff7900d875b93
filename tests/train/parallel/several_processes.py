"""One process of several that train the runs of a list, one after the other. Started by torchrun; see conftest.py."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fewshot.train.loop as loop
import fewshot.train.run as runs
import fewshot.train.step as step
from fewshot.base.dist import finish, rank
from fewshot.checkpoint.pieces import Piece
from fewshot.dataset.loader import Batch
from fewshot.train.build import Setup


def sha(tensor: Tensor) -> str:
    """Return the hash of a tensor's values."""
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def sha_by_piece(pieces: Iterable[Piece]) -> dict[str, str]:
    """Return the hash of every piece that is not empty, by its key."""
    return {piece.key: sha(piece.tensor) for piece in pieces if piece.tensor.numel()}


class Exchanges(TorchDispatchMode):
    """Counts what this process exchanges with others, by name, for each phase of each step.

    The phases are "gradient", "update" and "rest", which is the vote and, where they are due, saving and validation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Counter[str]]] = []
        self._phase: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self._phase[func.name().removeprefix("c10d::").split(".")[0].strip("_")] += 1
        return func(*args, **(kwargs or {}))

    def compute_gradient(self, *args: Any) -> Any:
        """Begin a step."""
        self._phase = Counter()
        self.steps.append({"gradient": self._phase})
        return COMPUTE_GRADIENT(*args)

    def update(self, *args: Any) -> None:
        """Begin a step's second half."""
        self._phase = self.steps[-1]["update"] = Counter()
        UPDATE(*args)
        self._phase = self.steps[-1]["rest"] = Counter()


COMPUTE_GRADIENT, UPDATE, TRAIN, LOAD_BATCH = loop.compute_gradient, loop.update, loop.train, step.load_batch


def train_case(case: dict[str, Any]) -> dict[str, Any]:
    """Train a run, new (`given`) or resumed, and return what this process saw of it."""
    seen: dict[str, Any] = {"rows": {}}

    def load_batch(*args: Any, first_row: int, n_rows: int, **named: Any) -> Batch:
        batch = LOAD_BATCH(*args, first_row=first_row, n_rows=n_rows, **named)
        seen["rows"] |= {str(first_row + i): sha(batch.tokens[i])[:16] for i in range(n_rows)}
        return batch

    def train(setup: Setup, *others: Any, **named: Any) -> Iterator[Any]:
        held = setup.optimizers
        seen["initial"], seen["initial_state"] = sha_by_piece(held.weights()), sha_by_piece(held.state())
        yield from TRAIN(setup, *others, **named)
        seen["final"], seen["final_state"] = sha_by_piece(held.weights()), sha_by_piece(held.state())

    def steps() -> Iterator[Any]:
        if case.get("given") is not None:
            return runs.start(case["given"], Path(case["run"]), say=lambda line: None)
        return runs.resume(Path(case["run"]), say=lambda line: None, overrides=case.get("overrides"))

    runs.train, step.load_batch = train, load_batch
    try:
        if case.get("count"):
            with Exchanges() as counted:
                loop.compute_gradient, loop.update = counted.compute_gradient, counted.update
                metrics = list(steps())
            seen["exchanges"] = counted.steps
        else:
            metrics = list(steps())
    finally:
        runs.train, loop.compute_gradient, loop.update, step.load_batch = TRAIN, COMPUTE_GRADIENT, UPDATE, LOAD_BATCH
    losses, norms = [m.loss for m in metrics], [m.grad_norm for m in metrics]
    seconds = [m.seconds for m in metrics]
    return {"losses": losses, "norms": norms, "val_loss": metrics[-1].val_loss, "seconds": seconds, **seen}


def main(cases: list[dict[str, Any]], out: Path) -> None:
    """Train each case and write what this process saw of it."""
    torch.set_num_threads(1)
    reports = [train_case(case) for case in cases]
    (out / f"{rank()}.json").write_text(json.dumps(reports))
    finish()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
