"""Our GPT as a language model that can be evaluated. In: token rows. Out: hidden states and logits. Knows no text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.generate.next_logits import GPTSteps, Steps
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.model.prefix_tree import Prefix, PrefixTreeMemory


class GPTLanguageModel:
    """A GPT that answers as a `LanguageModel`; it is put into evaluation mode."""

    branching = True

    def __init__(self, model: GPT) -> None:
        self.model = model.eval()
        self.n_ctx, self.device = model.config.n_ctx, model.wte.weight.device

    def read(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return hidden states, computed by the model's own kernels."""
        return self.model.hidden(tokens)

    def read_prefix(self, tokens: Sequence[int]) -> Prefix:
        """Return the keys and values of these tokens."""
        prefix = Prefix(self.model.config)
        self.model.hidden(torch.tensor([list(tokens)], device=self.device), prefix)
        return prefix

    def read_trees(
        self, prefix: Prefix | None, tokens: Int[Tensor, "B T"], depths: Int[Tensor, "B T"], sees: Bool[Tensor, "B T T"]
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states, exact for every attention pattern."""
        return self.model.hidden(tokens, PrefixTreeMemory(prefix or Prefix(self.model.config), depths, sees))

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return scores over the vocabulary."""
        return self.model.logits(hidden)

    def steps(self) -> Steps:
        """Return steps that keep a cache of keys and values."""
        return GPTSteps(self._packed)

    @cached_property
    def _packed(self) -> PackedGPT:
        return PackedGPT(self.model)
