"""Training that came apart is found before anything of it is written down.

In: the figures of a step. Out: nothing, or `Diverged` with what is not finite, what is kept and what to change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from fewshot.base.errors import Diverged
from fewshot.checkpoint.folder import checkpoint_folders
from fewshot.dataset.loader import Batch
from fewshot.model.gpt import GPT
from fewshot.train.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What a message about one run needs to know."""

    run: Path
    optimizer: OptimizerConfig

    def check(self, what: str, value: float, *, step: int) -> None:
        """Raise `Diverged` unless `value`, which is `what` of this step, is a finite number."""
        if not math.isfinite(value):
            raise self.diverged(
                f"{what} is {value}", step=step, updated=what not in ("the loss", "the gradient's norm")
            )

    def diverged(self, what: str, *, step: int, updated: bool) -> Diverged:
        """Return the error for `what` was found in this step, before or after the weights were `updated`."""
        kept = checkpoint_folders(self.run)
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint from before"
        where = "" if kept else f", in a new folder or after deleting {self.run}"
        option = self._option(step - 1 + updated)
        advice = f"start again with a lower {option}{where}"
        return Diverged(f"training came apart: in step {step:,} {what}; {last}; {advice}")

    def _option(self, n_updates: int) -> str:
        """Name what most likely was too large, after so many updates."""
        if n_updates == 0:
            return "model.init_std"
        has_matrix_lr = self.optimizer.name != "adamw"
        lr = max(self.optimizer.lr, self.optimizer.matrix_lr if has_matrix_lr else 0.0)
        if lr < 1 <= lr * self.optimizer.weight_decay:  # an update takes more than the whole weight away
            return "optimizer.weight_decay"
        return "optimizer.lr or optimizer.matrix_lr" if has_matrix_lr else "optimizer.lr"


def look_at_one_row(model: GPT, batch: Batch) -> tuple[float, float]:
    """Return loss and gradient's norm of the batch's first row; finite weights may be so huge that they are none."""
    device = model.wte.weight.device
    documents = None if batch.documents is None else batch.documents[:1].to(device)
    model.eval()
    with torch.compiler.set_stance("force_eager"):  # another shape than in training: not worth compiling for
        loss = model.loss(batch.tokens[:1].to(device), batch.targets[:1].to(device), documents)
        gradients = torch.autograd.grad(loss, [one for one in model.parameters() if one.requires_grad])
    return loss.item(), torch.nn.utils.get_total_norm(gradients).item()
