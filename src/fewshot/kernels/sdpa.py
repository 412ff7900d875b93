"""Attention by torch's `scaled_dot_product_attention`: fused, but it computes all T x S scores of a masked pattern."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels import reference
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Requirements
from fewshot.kernels.reference import readable_keys
from fewshot.patterns.pattern import Dense, Pattern


def supports(requirements: Requirements) -> str | None:
    """Return why the kernel cannot be used, or None if it can."""
    return "torch's fused attention has no second derivative" if requirements.second_order else None


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
    """Return attention as `interface.Attend` defines it; dense attention without documents needs no mask.

    With dropout the weights are needed themselves: they are computed as `reference` does.
    """
    if dropout:  # torch would draw the zeros for all rows together
        return reference.attend(q, k, v, pattern, q_start=q_start, documents=documents, dropout=dropout)
    n_queries, n_keys = q.shape[2], k.shape[2]
    unmasked = type(pattern) is Dense and documents is None
    is_causal = unmasked and q_start == 0 and n_queries == n_keys
    reads_all = unmasked and n_queries == 1 and q_start == n_keys - 1  # the newest query of a decode
    readable = None
    if not (is_causal or reads_all):
        readable = readable_keys(q, k, pattern, q_start=q_start, documents=documents)
    return F.scaled_dot_product_attention(q, k, v, readable, is_causal=is_causal)
