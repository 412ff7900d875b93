"""Read texts that share their beginnings as prefix trees: each shared token is computed once.

A row holds prefix trees: every token but a root has a parent, and reads its ancestors as if they alone stood before it,
at positions that count from the root. All rows follow one prefix. In: which tokens are ancestors of which. Out: what a
layer needs for its attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import ContextTooLong
from fewshot.kernels.interface import Attend
from fewshot.model.config import GPTConfig
from fewshot.patterns.pattern import Pattern


@dataclass(frozen=True)
class Prefix:
    """Keys and values [2, 1, H, P, K] of a text in every layer; `GPT.hidden` fills it when it is given the text."""

    config: GPTConfig
    layers: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of the prefix."""
        return self.layers[0].shape[3] if self.layers else 0

    def positions(self, n_positions: int) -> Int[Tensor, " T"]:
        """Return positions that count from 0: the prefix is a whole text."""
        return torch.arange(n_positions)

    def layer_memories(self, n_positions: int) -> list[_PrefixAttention]:
        """Return for each layer what stores its keys and values; raises ContextTooLong beyond n_ctx."""
        if n_positions > self.config.n_ctx:
            raise ContextTooLong(n_positions, self.config.n_ctx)
        schedule = self.config.schedule()
        return [_PrefixAttention(self, schedule.for_layer(i)) for i in range(self.config.n_layers)]

    def advance(self, n_positions: int) -> None:
        """Do nothing: the layers have stored all there is."""


@dataclass(frozen=True)
class _PrefixAttention:
    prefix: Prefix
    pattern: Pattern

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
        """Attend as without any memory, and store the keys and values."""
        self.prefix.layers.append(torch.stack([k, v]))
        return attend(q, k, v, self.pattern)


class PrefixTreeMemory:
    """The memory of one call of `GPT.hidden`, whose tokens branch as prefix trees after one prefix.

    `depths` counts a token's ancestors in its row, `sees` tells which tokens of the row are its ancestors or itself.
    Raises ContextTooLong if prefix and deepest token exceed n_ctx.
    """

    def __init__(self, prefix: Prefix, depths: Int[Tensor, "B T"], sees: Bool[Tensor, "B T T"]) -> None:
        self.config, self.prefix, self.depths = prefix.config, prefix, depths
        last = prefix.length + int(depths.max()) + 1
        if last > self.config.n_ctx:
            raise ContextTooLong(last, self.config.n_ctx)
        earlier = sees.new_ones(*sees.shape[:2], prefix.length)
        self.sees = torch.cat([earlier, sees], dim=2)
        self._masks: dict[Pattern, Bool[Tensor, "B H T S"]] = {}

    def positions(self, n_positions: int) -> Int[Tensor, "B T"]:
        """Return each token's position: its depth, counted from the end of the prefix."""
        return self.prefix.length + self.depths

    def layer_memories(self, n_positions: int) -> list[_TreeAttention]:
        """Return for each layer what its attention needs."""
        schedule = self.config.schedule()
        before: Sequence[Tensor | None] = self.prefix.layers or [None] * self.config.n_layers
        return [_TreeAttention(self, schedule.for_layer(i), layer) for i, layer in enumerate(before)]

    def advance(self, n_positions: int) -> None:
        """Do nothing: a tree is read once."""

    def mask(self, pattern: Pattern) -> Bool[Tensor, "B H T S"]:
        """Return which keys, those of the prefix first, each token may read; one head where all are alike."""
        if pattern not in self._masks:
            queries = self.prefix.length + self.depths
            before = torch.arange(self.prefix.length, device=queries.device).expand(len(queries), -1)
            q, k = queries[:, :, None], torch.cat([before, queries], dim=1)[:, None, :]
            heads = range(self.config.n_heads if pattern.needs_heads else 1)
            self._masks[pattern] = torch.stack([self.sees & pattern.allows(q, k, h) for h in heads], dim=1)
        return self._masks[pattern]


@dataclass(frozen=True)
class _TreeAttention:
    tree: PrefixTreeMemory
    pattern: Pattern
    before: Float[Tensor, "2 1 H P K"] | None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
        """Attend from each token to the prefix and to its ancestors, as far as the pattern allows."""
        if self.before is not None:
            keys, values = self.before.to(k.dtype).expand(-1, len(q), -1, -1, -1)
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        return F.scaled_dot_product_attention(q, k, v, self.tree.mask(self.pattern))
