"""What a GPT is: a frozen value with no tensors. In: numbers. Out: numbers. Refuses to know how it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot.base.errors import check
from fewshot.patterns.schedule import Schedule, parse

BLOCKS = ("pre-ln", "post-ln")


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The shape of one model, in the words of GPT-3's Table 2.1.

    `d_head` and `d_ff` of None mean d_model / n_heads and 4 * d_model. `block` is "pre-ln" (GPT-2 and GPT-3: norm
    first, one more norm at the end) or "post-ln" (GPT-1: norm after each residual sum, none at the end).
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_ctx: int = 2048  # tokens
    n_vocab: int = 50257
    d_head: int | None = None
    d_ff: int | None = None
    pattern: str = "dense"  # who may read whom, cycled over the layers: "alternate(dense, banded(256))"
    block: str = "pre-ln"
    tied: bool = True  # the output matrix is the token embedding
    dropout: float = 0.0  # on attention weights, residual additions and embeddings; GPT-1 and GPT-2 used 0.1
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "n_ctx", "n_vocab", "d_head", "d_ff"):
            size = getattr(self, name)
            check(size is None or size >= 1, f"{name} is {size}, must be at least 1")
        check(self.block in BLOCKS, f"block is {self.block!r}, allowed: {', '.join(BLOCKS)}")
        check(0 <= self.dropout < 1, f"dropout is {self.dropout}, must be in [0, 1)")
        check(self.init_std > 0, f"init_std is {self.init_std}, must be above 0")
        check(
            self.d_head is not None or self.d_model % self.n_heads == 0,
            f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}: change one, or give d_head",
        )
        self.schedule()

    def schedule(self) -> Schedule:
        """The attention pattern of every layer."""
        return parse(self.pattern)

    @property
    def head_width(self) -> int:
        """Width K of one head."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def ff_width(self) -> int:
        """Width F of the feed-forward layer."""
        return self.d_ff or 4 * self.d_model
