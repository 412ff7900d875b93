"""Pipeline parallel: each process holds some consecutive blocks; micro-batches pass from stage to stage.

The first stage also has the embeddings, the last one the final norm and the output matrix. Tied embeddings are on both:
their gradients are added before the norm, so both copies stay equal to the bit. The only file that knows
torch.distributed.pipelining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from fewshot.dataset.loader import IGNORED, Batch
from fewshot.model.footprint.layout import stage_layers
from fewshot.model.gpt import GPT
from fewshot.model.loss import mean_cross_entropy
from fewshot.train.parallel.mesh import Layout, shares


class Elsewhere(nn.Module):
    """Stands for a part of the model that another stage has; passes on what comes in."""

    def forward(self, x: Tensor, *others: object) -> Tensor:
        """Return the input."""
        return x


def blocks_of_stage(n_layers: int, pp: int, stage: int) -> range:
    """Return the numbers of a stage's blocks; where they cannot be shared out evenly, later stages have more."""
    return range(*shares(n_layers, stage_layers(n_layers, pp))[stage])


def keep_stage(model: GPT, layout: Layout) -> None:
    """Take out of a whole model in place what other stages have; names stay as they are."""
    if layout.pp == 1:
        return
    stage = layout.place()["pp"]
    here = blocks_of_stage(len(model.h), layout.pp, stage)
    for i in range(len(model.h)):
        if i not in here:
            model.h[i] = Elsewhere()
    is_first, is_last = stage == 0, stage == layout.pp - 1
    elsewhere = {
        "wpe": not is_first,
        "wte": not (is_first or (is_last and model.config.tied)),
        "ln_f": not is_last,
    }
    for name in [name for name, gone in elsewhere.items() if gone]:
        setattr(model, name, Elsewhere())
    if not is_last:
        model.lm_head = None


class Stage(nn.Module):
    """What a stage computes: hidden states for the next one, or the loss."""

    def __init__(self, model: GPT, layout: Layout) -> None:
        super().__init__()
        self.model = model
        stage = layout.place()["pp"]
        self.is_first, self.is_last = stage == 0, stage == layout.pp - 1

    def forward(
        self, x: Tensor, targets: Tensor, documents: Tensor | None, keys: Tensor | None, n_tokens: int
    ) -> Tensor:
        """Return the hidden states [B, T, D] after the stage's blocks, or the loss [1] of the last stage."""
        model = self.model
        dropout = model.dropout(len(x), keys)
        x = model.with_positions(model.wte(x), dropout) if self.is_first else x
        x = model.through_blocks(x, documents=documents, dropout=dropout)
        if not self.is_last:
            return x
        hidden = model.ln_f(x).flatten(0, 1)
        return mean_cross_entropy(hidden, model.output_weight, targets.flatten(), n_tokens=n_tokens).view(1)


class Pipeline:
    """Sends micro-batches through all stages; every process of a pipeline calls it with the same ones."""

    def __init__(self, stage: Stage, layout: Layout, device: torch.device) -> None:
        self._stage, self._layout, self._device = stage, layout, device
        self._schedules: dict[tuple[int, int], PipelineScheduleSingle] = {}  # by number of micro-batches and of rows

    def losses(self, batches: list[Batch], keys: list[Tensor | None], *, n_tokens: int, backward: bool) -> list[Tensor]:
        """Return each micro-batch's loss, on the last stage; zeros elsewhere. With `backward`, gradients are added.

        A schedule needs as many micro-batches as there are stages: those that are missing have no target that counts.
        """
        n, missing = len(batches), max(0, self._layout.pp - len(batches))
        idle = replace(batches[0], targets=torch.full_like(batches[0].targets, IGNORED))
        batches, keys = [*batches, *[idle] * missing], [*keys, *keys[:1] * missing]
        tokens, targets, documents, keys_of_rows = (
            _joined(parts, self._device)
            for parts in (
                [batch.tokens for batch in batches],
                [batch.targets for batch in batches],
                [batch.documents for batch in batches],
                keys,
            )
        )
        losses: list[Tensor] = []
        inputs = (tokens,) if self._stage.is_first else ()
        named: dict[str, Any] = {"targets": targets, "documents": documents, "keys": keys_of_rows, "n_tokens": n_tokens}
        if self._stage.is_last:
            named |= {"target": targets, "losses": losses}
        schedule = self._schedule(len(batches), len(batches[0].tokens))
        run = schedule.step if backward else schedule.eval
        run(*inputs, **named)
        return [loss.detach().view(()) for loss in losses[:n]] or [torch.zeros((), device=self._device)] * n

    def _schedule(self, n: int, n_rows: int) -> PipelineScheduleSingle:
        if (n, n_rows) not in self._schedules:
            layout = self._layout
            stage = PipelineStage(self._stage, layout.place()["pp"], layout.pp, self._device, group=layout.group("pp"))
            self._schedules[n, n_rows] = Schedule1F1B(stage, n, loss_fn=lambda loss, _: loss, scale_grads=False)
        return self._schedules[n, n_rows]


def _joined(parts: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors).to(device) if tensors else None


def add_tied_gradients(model: GPT, layout: Layout) -> None:
    """Give both copies of tied embeddings the sum of their gradients."""
    if layout.pp == 1 or not model.config.tied:
        return
    group = layout.ends_group
    if layout.place()["pp"] in (0, layout.pp - 1):
        gradient = model.wte.weight.grad
        assert gradient is not None
        dist.all_reduce(gradient.to_local() if hasattr(gradient, "to_local") else gradient, group=group)
