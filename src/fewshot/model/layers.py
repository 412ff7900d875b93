"""One transformer block of the GPT family. In: activations [B, T, D]. Out: the same shape.

Parameters carry GPT-2's names. The attention kernel is handed in; the block knows only the signature.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot.kernels.need import Attend
from fewshot.model.cache import Reading
from fewshot.model.config import GPTConfig
from fewshot.patterns.pattern import Pattern


class Attention(nn.Module):
    """Multi-head attention with one pattern; query, key and value come from one matrix, as in GPT-2."""

    def __init__(self, config: GPTConfig, pattern: Pattern, attend: Attend) -> None:
        super().__init__()
        self.n_heads, self.d_head = config.n_heads, config.head_width
        self.dropout = config.dropout
        self.pattern, self.attend = pattern, attend
        width = self.n_heads * self.d_head
        self.c_attn = nn.Linear(config.d_model, 3 * width)
        self.c_proj = nn.Linear(width, config.d_model)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        reading: Reading | None = None,
        documents: Int[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from each of the T positions to those that the pattern allows, the cached ones included."""
        n_rows, n_positions, _ = x.shape
        qkv = self.c_attn(x).view(n_rows, n_positions, 3, self.n_heads, self.d_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if reading is None:
            dropout = self.dropout if self.training else 0.0
            mixed = self.attend(q, k, v, self.pattern, documents=documents, dropout=dropout)
        else:
            mixed = reading.attend(q, k, v, self.attend)
        return self.c_proj(mixed.transpose(1, 2).reshape(n_rows, n_positions, -1))


class FeedForward(nn.Module):
    """Two linear layers with the tanh form of GELU between them, as in the code of GPT-1 and GPT-2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.ff_width)
        self.c_proj = nn.Linear(config.ff_width, config.d_model)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Position by position, no mixing."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and feed-forward with their norms and residual sums.

    pre-LN (GPT-2, GPT-3): x + attn(ln_1(x)), then x + mlp(ln_2(x)).
    post-LN (GPT-1): ln_1(x + attn(x)), then ln_2(x + mlp(x)).
    """

    def __init__(self, config: GPTConfig, pattern: Pattern, attend: Attend) -> None:
        super().__init__()
        self.norm_first = config.block == "pre-ln"
        self.ln_1 = nn.LayerNorm(config.d_model)
        self.attn = Attention(config, pattern, attend)
        self.ln_2 = nn.LayerNorm(config.d_model)
        self.mlp = FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        reading: Reading | None = None,
        documents: Int[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The block's output."""
        if self.norm_first:
            x = x + self.drop(self.attn(self.ln_1(x), reading, documents))
            return x + self.drop(self.mlp(self.ln_2(x)))
        x = self.ln_1(x + self.drop(self.attn(x, reading, documents)))
        return self.ln_2(x + self.drop(self.mlp(x)))
