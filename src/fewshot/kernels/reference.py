"""The definition of attention: masked softmax in float32, differentiable any number of times.

Every other kernel is tested against it. It computes all T x S scores, whatever the pattern.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import BadValue
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Requirements
from fewshot.patterns.pattern import Pattern


def supports(requirements: Requirements) -> str | None:
    """Return None: the definition fits any requirements."""
    return None


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    pattern: Pattern,
    *,
    q_start: int = 0,
    documents: Int[Tensor, "B S"] | None = None,
    dropout: Dropout | None = None,
) -> Float[Tensor, "B H T K"]:
    """Return attention as `interface.Attend` defines it, in q's dtype.

    It is computed in float32 (float64 stays float64).
    """
    weights = attention_weights(q, k, pattern, q_start=q_start, documents=documents)
    if dropout:
        weights = dropout.of_weights(weights)
    return (weights @ v.to(weights.dtype)).to(q.dtype)


def attention_weights(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    pattern: Pattern,
    *,
    q_start: int = 0,
    documents: Int[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B H T S"]:
    """Return how much of each key a query reads: the softmax of its scores, in float32 (float64 stays float64)."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(dtype) @ k.to(dtype).mT / math.sqrt(q.shape[-1])
    readable = readable_keys(q, k, pattern, q_start=q_start, documents=documents)
    return scores.masked_fill(~readable, -torch.inf).softmax(dim=-1)


def readable_keys(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    pattern: Pattern,
    *,
    q_start: int,
    documents: Int[Tensor, "B S"] | None,
) -> Bool[Tensor, "... T S"]:
    """Return which query may read which key: [T, S], or [1 or B, 1 or H, T, S] if heads or documents differ.

    Built from positions on q's device at each call, so that a compiler can fuse it away.
    Raises BadValue if q_start + T exceeds S.
    """
    check_positions(q, k, q_start)
    n_heads, n_keys, end = q.shape[1], k.shape[2], q_start + q.shape[2]
    queries = torch.arange(q_start, end, device=q.device)[:, None]
    keys = torch.arange(n_keys, device=q.device)
    heads = torch.arange(n_heads, device=q.device).view(1, -1, 1, 1)
    readable = pattern.allows(queries, keys, heads)  # as long as the heads only if it looks at them
    if documents is not None:
        readable = readable & (documents[:, None, q_start:end, None] == documents[:, None, None, :])
    return readable


def check_positions(q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H S K"], q_start: int) -> None:
    """Raise BadValue if a query stands beyond the keys: its own would be missing."""
    end, n_keys = q_start + q.shape[2], k.shape[2]
    if end > n_keys:
        raise BadValue(f"queries reach position {end - 1}, but there are only {n_keys} keys: pass q_start + T <= S")


def check_inputs(q: Tensor, k: Tensor, v: Tensor, q_start: int, documents: Tensor | None) -> None:
    """Raise BadValue for what a kernel that works on memory would read wrongly: shapes and types that do not agree."""
    rows, columns = (k.shape[0], k.shape[2]), (q.shape[3], k.shape[3], v.shape[3])
    agree = q.ndim == 4 and q.shape[:2] == k.shape[:2] and k.shape == v.shape and len(set(columns)) == 1
    if not agree or not q.dtype == k.dtype == v.dtype or q_start < 0:
        shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in (q, k, v))
        raise BadValue(
            f"the shapes or types of q, k and v do not agree: {shapes}, q_start {q_start}; see interface.Attend"
        )
    if documents is not None and documents.shape != rows:
        raise BadValue(f"documents has the shape {list(documents.shape)}, expected one number per key, {list(rows)}")
    check_positions(q, k, q_start)
