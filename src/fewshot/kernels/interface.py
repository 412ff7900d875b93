"""What a kernel must be able to do, and the two functions that every kernel module has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.patterns.pattern import Pattern


@dataclass(frozen=True)
class Requirements:
    """What a kernel is needed for: all that decides whether it fits."""

    pattern: Pattern
    device: str  # type alone: "cpu", "cuda"
    dtype: torch.dtype
    n_queries: int
    n_keys: int
    documents: bool  # whether attention stays within documents
    dropout: float  # probability
    training: bool  # whether gradients are needed
    second_order: bool = False  # whether gradients of gradients are needed
    width: int | None = None  # K, where it is known


@runtime_checkable
class Attend(Protocol):
    """Attention under a pattern.

    Query row t stands at position q_start + t, the S keys at 0, ..., S - 1; every query's own key is among them.
    Scores are scaled by 1/sqrt(K). `documents` numbers the document of each key position: a query reads only keys
    of its own document. `dropout` falls on the attention weights; pass None outside training.
    Raises BadValue if q_start + T exceeds S.
    """

    def __call__(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H S K"],
        v: Float[Tensor, "B H S K"],
        pattern: Pattern,
        *,
        q_start: int = 0,
        documents: Int[Tensor, "B S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B H T K"]:
        """Return the values that each query reads, weighted by the softmax of its scores; in q's dtype."""
        ...


@runtime_checkable
class Kernel(Protocol):
    """A module that computes attention."""

    attend: Attend

    def supports(self, requirements: Requirements) -> str | None:
        """Return why the kernel cannot be used, or None if it can."""
        ...
