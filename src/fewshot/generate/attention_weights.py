"""What the last position of a text reads, head by head: the weights that attention gives to each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import ContextTooLong
from fewshot.kernels.interface import Attend
from fewshot.model.gpt import GPT
from fewshot.patterns.pages import keys_of
from fewshot.patterns.pattern import Pattern


@torch.inference_mode()
def last_attention(model: GPT, tokens: Sequence[int]) -> list[LayerAttention]:
    """Return what the last position of a text reads in each layer; raises ContextTooLong."""
    if len(tokens) > model.config.n_ctx:
        raise ContextTooLong(len(tokens), model.config.n_ctx)
    memory = _Recording(model)
    model.hidden(torch.tensor([list(tokens)], device=model.wte.weight.device), memory)
    return memory.layers


class _Recording:
    """A memory of nothing, that records the weights of the last position."""

    def __init__(self, model: GPT) -> None:
        schedule = model.config.schedule()
        self.layers = [LayerAttention(schedule.for_layer(i)) for i in range(model.config.n_layers)]
        self._device = model.wte.weight.device

    def layer_memories(self, n_positions: int) -> Sequence[LayerAttention]:
        return self.layers

    def positions(self, n_positions: int) -> Int[Tensor, " T"]:
        return torch.arange(n_positions, device=self._device)

    def advance(self, n_positions: int) -> None:
        """Count nothing: a text is read once."""


@dataclass
class LayerAttention:
    """The attention of the last position in one layer."""

    pattern: Pattern
    weights: Float[Tensor, "H T"] = field(default_factory=lambda: torch.empty(0, 0))  # of a head they are 1 in sum
    allowed: Bool[Tensor, "H T"] = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.bool))

    def attend(
        self,
        q: Float[Tensor, "1 H T K"],
        k: Float[Tensor, "1 H T K"],
        v: Float[Tensor, "1 H T K"],
        attend: Attend,
    ) -> Float[Tensor, "1 H T K"]:
        """Return the attention of all positions, and record that of the last."""
        n_heads, n, width = q.shape[1:]
        scores = (k[0].float() @ q[0, :, -1, :, None].float())[..., 0] / width**0.5
        patterns = self.pattern.for_heads(n_heads)
        self.allowed = torch.zeros(n_heads, n, dtype=torch.bool, device=q.device)
        for head in range(n_heads):
            self.allowed[head, torch.from_numpy(keys_of(patterns[head % len(patterns)], n - 1))] = True
        self.weights = scores.masked_fill(~self.allowed, -torch.inf).softmax(-1)
        return attend(q, k, v, self.pattern)
