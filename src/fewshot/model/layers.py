"""The transformer block of the GPT family. In: activations [B, T, D]. Out: the same shape.

Parameters carry GPT-2's names. The attention kernel is handed in; the block knows only the signature.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fewshot.kernels.elementwise.activations import ACTIVATIONS
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Attend
from fewshot.model.config import GPTConfig
from fewshot.model.memory import LayerMemory
from fewshot.patterns.pattern import Pattern


class Attention(nn.Module):
    """Multi-head attention with one pattern; query, key and value come from one matrix, as in GPT-2.

    Queries and keys may be narrower than values (Child et al. 2019, section 7). Kernels take one width K and scale by
    1/sqrt(K): narrow ones get zeros, which add nothing to a product, and queries sqrt(K / d_qk).
    """

    def __init__(self, config: GPTConfig, pattern: Pattern, attend: Attend) -> None:
        super().__init__()
        self.n_heads, self.d_head, self.d_qk = config.n_heads, config.head_width, config.qk_width
        self.has_dropout, self.first_head = config.inner_dropout > 0, 0
        self.pattern, self.attend = pattern, attend
        self.widths = [self.n_heads * width for width in (self.d_qk, self.d_qk, self.d_head)]
        self.c_attn = nn.Linear(config.d_model, sum(self.widths))
        self.c_proj = nn.Linear(self.widths[-1], config.d_model)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        memory: LayerMemory | None = None,
        documents: Int[Tensor, "B S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from each of the T positions to those that the pattern allows, the cached ones included."""
        n_rows, n_positions, _ = x.shape
        parts = self.c_attn(x).split(self.widths, dim=-1)
        q, k, v = (part.view(n_rows, n_positions, self.n_heads, -1) for part in parts)
        if missing := self.d_head - self.d_qk:
            q, k = F.pad(q * (self.d_head / self.d_qk) ** 0.5, (0, missing)), F.pad(k, (0, missing))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        if memory is None:
            on_weights = None
            if dropout is not None and self.has_dropout:
                on_weights = replace(dropout.at(0), first_head=self.first_head)
            mixed = self.attend(q, k, v, self.pattern, documents=documents, dropout=on_weights)
        else:
            mixed = memory.attend(q, k, v, self.attend)
        return self.c_proj(mixed.transpose(1, 2).reshape(n_rows, n_positions, -1))


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between them: GPT has GELU in its tanh form, as in its code."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.ff_width)
        self.c_proj = nn.Linear(config.ff_width, config.d_model)
        self.activation = ACTIVATIONS[config.activation_name]

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the layer's output for each position by itself."""
        return self.c_proj(self.activation(self.c_fc(x)))


class TransformerBlock(nn.Module):
    """Attention and feed-forward with their norms and residual sums.

    pre-LN (GPT-2, GPT-3, Sparse Transformer): x + attn(ln_1(x)), then x + mlp(ln_2(x)).
    post-LN (GPT-1): ln_1(x + attn(x)), then ln_2(x + mlp(x)).
    """

    def __init__(self, config: GPTConfig, pattern: Pattern, attend: Attend) -> None:
        super().__init__()
        self.norm_first = config.block != "post-ln"
        self.ln_1 = nn.LayerNorm(config.d_model)
        self.attn = Attention(config, pattern, attend)
        self.ln_2 = nn.LayerNorm(config.d_model)
        self.mlp = FeedForward(config)
        self.recompute_feed_forward = False  # in the backward pass

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        memory: LayerMemory | None = None,
        documents: Int[Tensor, "B S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return the block's output; `dropout` is given in training alone, if there is any."""
        if self.norm_first:
            x = x + _dropped(self.attn(self.ln_1(x), memory, documents, dropout), dropout, 1)
            return x + _dropped(self._feed_forward(x, memory), dropout, 2)
        x = self.ln_1(x + _dropped(self.attn(x, memory, documents, dropout), dropout, 1))
        return self.ln_2(x + _dropped(self._feed_forward(x, memory), dropout, 2))

    def _feed_forward(self, x: Float[Tensor, "B T D"], memory: LayerMemory | None) -> Float[Tensor, "B T D"]:
        if self.recompute_feed_forward and memory is None and torch.is_grad_enabled():
            return checkpoint(self._after_attention, x, use_reentrant=False, preserve_rng_state=False)
        return self._after_attention(x)

    def _after_attention(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.mlp(self.ln_2(x) if self.norm_first else x)


def _dropped(x: Float[Tensor, "B T D"], dropout: Dropout | None, place: int) -> Float[Tensor, "B T D"]:
    return x if dropout is None else dropout.at(place)(x)
