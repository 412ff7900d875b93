"""Tensor parallel: each process computes some of the heads and some of the feed-forward units of every block.

The first matrix of a half of a block is cut by rows and needs no exchange forward, the second by columns: their outputs
are added over the processes, and so are the gradients of what the first one reads (Shoeybi et al. 2019). Two sums a
block forward, two backward. The modules stay plain ones with fewer rows and columns; names stay.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.layers import TransformerBlock
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.parts import tensor_parallel_ranges


class _AddGradients(torch.autograd.Function):
    """Nothing forward; the gradient is added over the group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _AddOutputs(torch.autograd.Function):
    """Outputs are added over the group; nothing backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _ByRows(nn.Linear):
    """A linear layer with some of the rows of the whole: some of its outputs."""

    group: dist.ProcessGroup

    @torch.compiler.disable
    def forward(self, input: Tensor) -> Tensor:
        """Return this process's share of the outputs."""
        return F.linear(_AddGradients.apply(input, self.group), self.weight, self.bias)


class _ByColumns(nn.Linear):
    """A linear layer that reads some of the inputs of the whole; the bias is added once, to the sum."""

    group: dist.ProcessGroup

    @torch.compiler.disable
    def forward(self, input: Tensor) -> Tensor:
        """Return the whole outputs, added in float32 at least."""
        partial = F.linear(input, self.weight)
        return _AddOutputs.apply(partial.to(self.bias.dtype), self.group) + self.bias


def share_heads(model: GPT, layout: Layout) -> None:
    """Cut the blocks of a whole model in place to what this process computes."""
    if layout.tp == 1:
        return
    config, rank, group = model.config, layout.place()["tp"], layout.group("tp")
    for block in model.h:
        if isinstance(block, TransformerBlock):
            attention = block.attn
            attention.first_head = rank * config.n_heads // layout.tp
            attention.n_heads //= layout.tp
            attention.widths = [width // layout.tp for width in attention.widths]
            for module, name, kind in (
                (attention, "c_attn", _ByRows),
                (attention, "c_proj", _ByColumns),
                (block.mlp, "c_fc", _ByRows),
                (block.mlp, "c_proj", _ByColumns),
            ):
                _cut(module, name, kind, config, rank=rank, size=layout.tp, group=group)


@torch.no_grad()
def _cut(
    module: nn.Module, name: str, kind: type[nn.Linear], config: GPTConfig, *, rank: int, size: int, group: Any
) -> None:
    """Replace a linear layer by one that holds this process's rows or columns of it."""
    whole = getattr(module, name)
    place = "attn" if hasattr(module, "c_attn") else "mlp"
    linear = kind(1, 1, device="meta")
    for end, parameter in whole.named_parameters():
        ranges = tensor_parallel_ranges(f"{place}.{name}.{end}", tuple(parameter.shape), config, rank=rank, size=size)
        rows = [parameter[tuple(slice(*ends) for ends in cut)] for cut in ranges]
        setattr(linear, end, nn.Parameter(torch.cat(rows).clone()))
    linear.out_features, linear.in_features = linear.weight.shape
    linear.group = group
    setattr(module, name, linear)
