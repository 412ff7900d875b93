"""What evaluation asks of a model, and how our GPT answers it. In: token rows. Out: hidden states and logits.

`transformers_model.py` answers it for the models of the transformers library. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.generate.steps import GPTSteps, Steps
from fewshot.model.gpt import GPT
from fewshot.model.prefix_tree import Prefix, PrefixTree


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model, read without gradients."""

    n_ctx: int
    device: torch.device
    branching: bool  # whether it can read trees of texts behind a prefix

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return hidden states of plain rows; position t has read tokens up to t alone."""
        ...

    def read_prefix(self, tokens: Sequence[int]) -> Any:
        """Return what later texts that begin with `tokens` need to know of them."""
        ...

    def read_trees(
        self, prefix: Any, tokens: Int[Tensor, "B T"], depths: Int[Tensor, "B T"], sees: Bool[Tensor, "B T T"]
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states of forests behind a prefix (None: behind nothing); see `model/prefix_tree.py`."""
        ...

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return scores over the vocabulary."""
        ...

    def steps(self) -> Steps:
        """Return what writes texts on, token by token."""
        ...


class GPTLanguageModel:
    """Our GPT as a `Reader`; it is put into evaluation mode."""

    branching = True

    def __init__(self, model: GPT) -> None:
        self.model = model.eval()
        self.n_ctx, self.device = model.config.n_ctx, model.wte.weight.device

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return hidden states, by the model's own kernels."""
        return self.model.hidden(tokens)

    def read_prefix(self, tokens: Sequence[int]) -> Prefix:
        """Return its keys and values."""
        prefix = Prefix(self.model.config)
        self.model.hidden(torch.tensor([list(tokens)], device=self.device), prefix)
        return prefix

    def read_trees(
        self, prefix: Prefix | None, tokens: Int[Tensor, "B T"], depths: Int[Tensor, "B T"], sees: Bool[Tensor, "B T T"]
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states; every pattern is exact."""
        return self.model.hidden(tokens, PrefixTree(prefix or Prefix(self.model.config), depths, sees))

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return scores over the vocabulary."""
        return self.model.logits(hidden)

    def steps(self) -> Steps:
        """With a cache of keys and values."""
        return GPTSteps(self.model)
