"""Context parallel: each process has some consecutive positions of every row, and fetches the keys that it lacks.

A banded layer needs those of the window - 1 positions before its own, which come from the process before. Any other
layer gathers the keys of all positions, and leaves out those after its own. Gradients of keys and values go back the
same way and are added in float32. Nothing else of a block looks at other positions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.dataset.loader import Batch
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Attend
from fewshot.model.gpt import GPT
from fewshot.patterns.pattern import Banded, Pattern
from fewshot.train.parallel.mesh import Layout


def share_positions(model: GPT, layout: Layout) -> None:
    """Let a model compute the positions that are this process's."""
    if layout.cp > 1:
        model.first_position = layout.place()["cp"] * model.config.n_ctx // layout.cp


def own_positions(batch: Batch, layout: Layout) -> Batch:
    """Return this process's positions of a batch; document numbers stay whole, as keys of others are read too."""
    if layout.cp == 1:
        return batch
    n = batch.tokens.shape[1] // layout.cp
    mine = slice(layout.place()["cp"] * n, (layout.place()["cp"] + 1) * n)
    return dataclasses.replace(batch, tokens=batch.tokens[:, mine], targets=batch.targets[:, mine])


def over_positions(attend: Attend, layout: Layout) -> Attend:
    """Return attention from this process's positions to all that a pattern allows, computed by `attend`."""
    return attend if layout.cp == 1 else _OverPositions(attend, layout)


class _OverPositions:
    """`Attend` whose queries, keys and values are this process's alone."""

    def __init__(self, attend: Attend, layout: Layout) -> None:
        self._attend, self._place, self._layout = attend, layout.place()["cp"], layout

    @torch.compiler.disable
    def __call__(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H T K"],
        v: Float[Tensor, "B H T K"],
        pattern: Pattern,
        *,
        q_start: int = 0,
        documents: Int[Tensor, "B S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B H T K"]:
        """Return what each of the T queries reads."""
        assert q_start == 0, "the cut is made here"
        n, own = q.shape[2], torch.stack([k, v])
        reach = pattern.window - 1 if isinstance(pattern, Banded) else n + 1
        before = _Neighbours.apply(own, reach, self._layout) if reach <= n else _AllBefore.apply(own, self._layout)
        keys, values = torch.cat([before, own], dim=3)
        start, first = before.shape[3], self._place * n
        seen = None if documents is None else documents[:, first - start : first + n]
        return self._attend(q, keys, values, pattern, q_start=start, documents=seen, dropout=dropout)


class _Neighbours(torch.autograd.Function):
    """The last `reach` positions [..., reach, K] of the process before; none for the first process."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, reach: int, layout: Layout) -> Tensor:
        ctx.reach, ctx.layout, ctx.n = reach, layout, own.shape[3]
        first, last = _ends(layout)
        before = own.new_empty((*own.shape[:3], 0 if first else reach, own.shape[4]))
        _pass_on(layout, None if last else own[..., ctx.n - reach :, :].contiguous(), None if first else before, step=1)
        return before

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        first, last = _ends(ctx.layout)
        own = grad.new_zeros((*grad.shape[:3], ctx.n, grad.shape[4]))
        came = None if last else own.new_empty((*own.shape[:3], ctx.reach, own.shape[4]))
        _pass_on(ctx.layout, None if first else grad.contiguous(), came, step=-1)
        if came is not None:
            own[..., ctx.n - ctx.reach :, :] = came
        return own, None, None


class _AllBefore(torch.autograd.Function):
    """All positions [..., place * T, K] of the processes before."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, layout: Layout) -> Tensor:
        ctx.layout, ctx.n = layout, own.shape[3]
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(layout.cp)]
        dist.all_gather(parts, own.contiguous(), group=layout.context_group)
        return torch.cat([own[..., :0, :], *parts[: layout.place()["cp"]]], dim=3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,), layout = grads, ctx.layout
        place, n = layout.place()["cp"], ctx.n
        of_each = grad.new_zeros((layout.cp, *grad.shape[:3], n, grad.shape[4]), dtype=torch.float32)
        if place:
            of_each[:place] = grad.unflatten(3, (place, n)).movedim(3, 0)
        own = torch.empty_like(of_each[0])
        dist.reduce_scatter_tensor(own, of_each.flatten(0, 1), group=layout.context_group)
        return own.to(grad.dtype), None


def _ends(layout: Layout) -> tuple[bool, bool]:
    """Return whether this process has the first positions, and whether it has the last."""
    place = layout.place()["cp"]
    return place == 0, place == layout.cp - 1


def _pass_on(layout: Layout, sent: Tensor | None, received: Tensor | None, *, step: int) -> None:
    """Send to the process `step` places on, and receive from that as many places before."""
    group, place = layout.context_group, layout.place()["cp"]
    ops = []
    if sent is not None:
        ops.append(dist.P2POp(dist.isend, sent, group=group, group_peer=place + step))
    if received is not None:
        ops.append(dist.P2POp(dist.irecv, received, group=group, group_peer=place - step))
    for work in dist.batch_isend_irecv(ops):
        work.wait()
