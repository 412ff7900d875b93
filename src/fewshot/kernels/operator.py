"""Make one torch operator each of a kernel's forward and backward functions, so that torch.compile sees one step.

Shared by the kernels that work through a pattern's intervals: they differ in how an interval is computed, not in what
goes in and out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewshot.patterns.intervals import Phase, phases
from fewshot.patterns.schedule import parse

R = TypeVar("R")
# (q, k, v, pattern's text, q_start, documents) -> result, log-sum-exp of each query's scores
Forward = Callable[[Tensor, Tensor, Tensor, str, int, Tensor | None], tuple[Tensor, Tensor]]
# (gradient, q, k, v, result, log-sum-exp, pattern's text, q_start, documents) -> gradients of q, k and v
Backward = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, str, int, Tensor | None], tuple[Tensor, Tensor, Tensor]
]


def make_operator(name: str, forward: Forward, backward: Backward) -> Forward:
    """Register both as `fewshot::name` and `fewshot::name_backward`; results must lie as `positions_first` has them."""
    operator = torch.library.custom_op(
        f"fewshot::{name}",
        forward,
        mutates_args=(),
        schema="(Tensor q, Tensor k, Tensor v, str pattern, int q_start, Tensor? documents) -> (Tensor, Tensor)",
    )
    differentiate = torch.library.custom_op(
        f"fewshot::{name}_backward",
        backward,
        mutates_args=(),
        schema="(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, str pattern, int q_start, "
        "Tensor? documents) -> (Tensor, Tensor, Tensor)",
    )

    @operator.register_fake
    def _(q: Tensor, k: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        lse = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        return positions_first(q.shape, q, q.dtype), lse

    @differentiate.register_fake
    def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, ...]:
        return tuple(positions_first(x.shape, q, q.dtype) for x in (q, k, v))

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, ctx.pattern, ctx.q_start, documents = inputs
        ctx.save_for_backward(q, k, v, *output, documents)

    def run_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, documents = ctx.saved_tensors
        return (*differentiate(grad, q, k, v, out, lse, ctx.pattern, ctx.q_start, documents), None, None, None)

    operator.register_autograd(run_backward, setup_context=save)
    return operator


def without_autocast(function: Callable[..., R]) -> Callable[..., R]:
    """Return the function with autocast off inside it: it chooses the types of its products itself."""

    @functools.wraps(function)
    def run(q: Tensor, *others: Any) -> R:
        with torch.autocast(q.device.type, enabled=False):
            return function(q, *others)

    return run


def positions_first(shape: Sequence[int], like: Tensor, dtype: torch.dtype, *, zeros: bool = True) -> Tensor:
    """Return [B, H, T, K] that lies in memory as [B, T, H, K]: joining the heads afterwards is then a view."""
    B, H, T, K = shape
    make = like.new_zeros if zeros else like.new_empty
    return make((B, T, H, K), dtype=dtype).transpose(1, 2)


def ready(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors with a last stride of 1, copied only if need be."""
    exact = torch.contiguous_format  # `contiguous` leaves the stride of a single column as it is
    return [tensor if tensor.stride(-1) == 1 else tensor.clone(memory_format=exact) for tensor in tensors]


@functools.lru_cache(maxsize=64)
def phases_by_head(
    text: str, n_heads: int, n_queries: int, n_keys: int, q_start: int
) -> list[tuple[slice, tuple[Phase, ...]]]:
    """Return for each kind of head of a pattern which of the `n_heads` heads are of it, and its phases."""
    (pattern,) = parse(text).patterns
    kinds = pattern.for_heads(n_heads)
    return [
        (slice(h, None, len(kinds)), phases(kind, n_queries, n_keys, q_start)) for h, kind in enumerate(kinds[:n_heads])
    ]
