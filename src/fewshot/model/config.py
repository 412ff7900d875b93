"""What a GPT is: a frozen value with no tensors. In: numbers. Out: numbers. Refuses to know how it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot.base.errors import check
from fewshot.model.coordinates import table_sizes
from fewshot.patterns.pattern import Pattern
from fewshot.patterns.schedule import Schedule, parse

INIT_STDS = {"pre-ln": 0.02, "post-ln": 0.02, "sparse-transformer": 0.125}  # and the names of all blocks
ACTIVATIONS = ("gelu_tanh", "gelu", "relu", "quick_gelu")  # see kernels/elementwise/activations.py
MAX_INIT_STD = 10.0  # far above any that trains: beyond, the first loss already overflows


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The shape of one model, in the words of GPT-3's Table 2.1.

    `block` is "pre-ln" (GPT-2 and GPT-3: norm
    first, one more norm at the end), "post-ln" (GPT-1: norm after each residual sum, none at the end) or
    "sparse-transformer" (Child et al. 2019: the sums of pre-ln, GELU as x * sigmoid(1.702 x), an initialisation of
    its own, dropout on residual additions alone).
    """

    n_layers: int  # transformer blocks
    d_model: int  # width of the residual stream
    n_heads: int  # attention heads per layer
    n_ctx: int = 2048  # length of the context in tokens
    n_vocab: int = 50257  # size of the vocabulary; a run takes its tokenizer's unless a larger one is given
    d_head: int | None = None  # width of one head; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layer; None: 4 * d_model
    d_qk: int | None = None  # width of one head's queries and keys, at most d_head; None: d_head
    # which earlier positions a position attends to, such as "alternate(dense, banded(256))", cycled over the layers
    pattern: str = "dense"
    # position embeddings: "learned", "rows(WIDTH)" or "image(HEIGHT, WIDTH, CHANNELS)"; see model/positions.py
    positions: str = "learned"
    block: str = "pre-ln"  # "pre-ln", "post-ln" or "sparse-transformer"; see above
    # between the layers of the feed-forward half: "gelu_tanh" (the GPTs'), "gelu", "relu" or "quick_gelu";
    # None: "gelu_tanh", or "quick_gelu" in "sparse-transformer"
    activation: str | None = None
    tied: bool = True  # whether the output matrix is the token embedding
    dropout: float = 0.0  # on attention weights, residual additions and embeddings; GPT-1 and GPT-2 used 0.1
    # standard deviation of the initial matrices, times 1/sqrt(inputs) in "sparse-transformer";
    # None: 0.02, or 0.125 in "sparse-transformer"
    init_std: float | None = None

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "n_ctx", "n_vocab", "d_head", "d_ff", "d_qk"):
            size = getattr(self, name)
            check(size is None or size >= 1, f"{name} is {size}, must be at least 1")
        check(self.block in INIT_STDS, f"block is {self.block!r}, allowed: {', '.join(INIT_STDS)}")
        check(
            self.activation is None or self.activation in ACTIVATIONS,
            f"activation is {self.activation!r}, allowed: {', '.join(ACTIVATIONS)}",
        )
        check(0 <= self.dropout < 1, f"dropout is {self.dropout}, must be in [0, 1)")
        check(
            self.init_std is None or 0 < self.init_std <= MAX_INIT_STD,
            f"init_std is {self.init_std}, must be above 0 and at most {MAX_INIT_STD:g}",
        )
        check(
            self.d_head is not None or self.d_model % self.n_heads == 0,
            f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}: change one, or give d_head",
        )
        check(self.qk_width <= self.head_width, f"d_qk {self.d_qk} is above d_head {self.head_width}: lower it")
        check(
            not (self.tied and self.block == "sparse-transformer"),
            "the output matrix of a sparse-transformer starts at 0, so it cannot be the embedding: give tied: false",
        )
        self.schedule()
        table_sizes(self.positions, n_ctx=self.n_ctx)

    def schedule(self) -> Schedule:
        """Return the attention pattern of every layer."""
        return parse(self.pattern)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """Each pattern that some layer has, once, in the order of the layers."""
        schedule = self.schedule()
        return tuple(dict.fromkeys(schedule.for_layer(i) for i in range(self.n_layers)))

    @property
    def head_width(self) -> int:
        """Width K of one head."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def qk_width(self) -> int:
        """Width of one head's queries and keys."""
        return self.d_qk or self.head_width

    @property
    def ff_width(self) -> int:
        """Width F of the feed-forward layer."""
        return self.d_ff or 4 * self.d_model

    @property
    def activation_name(self) -> str:
        """The non-linearity of the feed-forward half, one of `ACTIVATIONS`."""
        return self.activation or ("quick_gelu" if self.block == "sparse-transformer" else "gelu_tanh")

    @property
    def matrix_std(self) -> float:
        """Standard deviation that the initialisation starts from."""
        return self.init_std or INIT_STDS[self.block]

    @property
    def inner_dropout(self) -> float:
        """Dropout on embeddings and attention weights; on residual additions it is `dropout` in every block."""
        return 0.0 if self.block == "sparse-transformer" else self.dropout
