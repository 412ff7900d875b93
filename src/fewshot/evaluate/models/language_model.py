"""What evaluation asks of a model. In: token rows. Out: hidden states and logits. Knows no text.

`gpt.py` implements it for our GPT, `transformers.py` for the models of the transformers library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.generate.next_logits import Steps


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model, read without gradients."""

    n_ctx: int
    device: torch.device
    branching: bool  # whether it can read several continuations of a prefix in one row, as a tree

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return hidden states of plain rows; position t has read tokens up to t alone."""
        ...

    def read_prefix(self, tokens: Sequence[int]) -> Any:
        """Return what later texts that begin with `tokens` need of them: their keys and values."""
        ...

    def read_trees(
        self, prefix: Any, tokens: Int[Tensor, "B T"], depths: Int[Tensor, "B T"], sees: Bool[Tensor, "B T T"]
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states of rows of trees behind a prefix, or behind nothing (None).

        `depths` and `sees` are as in `model/prefix_tree.py`.
        """
        ...

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return scores over the vocabulary."""
        ...

    def steps(self) -> Steps:
        """Return a new `Steps`, which continues texts token by token."""
        ...
