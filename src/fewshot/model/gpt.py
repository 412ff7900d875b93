"""GPT-1, GPT-2, GPT-3 and the Sparse Transformer from one class.

In: token ids, or inputs that are vectors already. Out: hidden states, logits, loss.
Knows nothing of text, of training or of how attention is computed: the kernel is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fewshot.base.errors import BadValue, ContextTooLong, look_up
from fewshot.kernels import sdpa
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Attend
from fewshot.model.config import GPTConfig
from fewshot.model.coordinates import table_sizes
from fewshot.model.footprint.activations import RECOMPUTE
from fewshot.model.init import initialise
from fewshot.model.layers import TransformerBlock
from fewshot.model.loss import mean_cross_entropy
from fewshot.model.memory import LayerMemory, Memory
from fewshot.model.positions import Positions


class GPT(nn.Module):
    """A decoder-only transformer with learned positions; parameters carry GPT-2's names.

    Source: Radford et al. 2018 and 2019, Child et al. 2019, Brown et al. 2020 section 2.1.
    """

    def __init__(self, config: GPTConfig, *, attend: Attend = sdpa.attend, seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        schedule = config.schedule()
        self.wte = nn.Embedding(config.n_vocab, config.d_model)
        self.wpe = Positions(table_sizes(config.positions, n_ctx=config.n_ctx), config.d_model)
        self.h = nn.ModuleList(TransformerBlock(config, schedule.for_layer(i), attend) for i in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.d_model) if config.block != "post-ln" else nn.Identity()
        self.lm_head = None if config.tied else nn.Linear(config.d_model, config.n_vocab, bias=False)
        self._recompute = "none"
        self.first_position = 0  # of the inputs without a memory, where a process has a part of every row
        initialise(self, config, seed=seed)

    @property
    def recompute(self) -> str:
        """What the backward pass computes again; only `set_recompute` changes it, as blocks have a part in it."""
        return self._recompute

    def set_recompute(self, what: str) -> None:
        """Compute "none", the "selective" half or the "full" of every block again in the backward pass.

        Instead of storing what it computed; gradients stay the same. Selective is the feed-forward half: half of the
        activations for a ninth more arithmetic, where all of them take a third more.
        """
        self._recompute = look_up("recompute", what, dict.fromkeys(RECOMPUTE, what))
        for block in self.h:
            if isinstance(block, TransformerBlock):
                block.recompute_feed_forward = what == "selective"

    @property
    def output_weight(self) -> Float[Tensor, "V D"]:
        """The matrix that turns hidden states into logits."""
        return self.wte.weight if self.lm_head is None else self.lm_head.weight

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        memory: Memory | None = None,
        documents: Int[Tensor, "B S"] | None = None,
        *,
        dropout_keys: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states after the last norm; memory, documents and keys as `read` has them."""
        return self.read(self.wte(tokens), memory, documents, dropout_keys=dropout_keys)

    def read(
        self,
        embedded: Float[Tensor, "B T D"],
        memory: Memory | None = None,
        documents: Int[Tensor, "B S"] | None = None,
        *,
        dropout_keys: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return hidden states after the last norm, for inputs that are vectors, such as embedded tokens.

        With a `PagedMemory` the one row holds the next positions of several texts, end to end, and it stores their keys
        and values. A `PrefixTreeMemory` takes its place where texts branch, a `Prefix` stores the keys and values that
        the trees then follow. `documents` numbers each position's
        document and keeps attention inside it. What is dropped of a row in training depends on its number in
        `dropout_keys` alone; without them they are drawn from torch's default generator. Raises ContextTooLong beyond
        n_ctx.
        """
        n_positions = embedded.shape[1]
        if memory is not None and documents is not None:
            raise BadValue("document masking and a cache cannot be used together: decode one document at a time")
        if memory is None and n_positions > self.config.n_ctx:
            raise ContextTooLong(n_positions, self.config.n_ctx, "the input")
        by_layer = None if memory is None else memory.layer_memories(n_positions)
        dropout = self.dropout(embedded.shape[0], dropout_keys)
        x = self.with_positions(embedded, dropout, memory)
        x = self.through_blocks(x, by_layer, documents=documents, dropout=dropout)
        if memory is not None:
            memory.advance(n_positions)
        return self.ln_f(x)

    def with_positions(
        self, embedded: Float[Tensor, "B T D"], dropout: Dropout | None = None, memory: Memory | None = None
    ) -> Float[Tensor, "B T D"]:
        """Return what the first block reads."""
        x = embedded + self._positions(embedded.shape[1], memory)
        return x if dropout is None or self.config.inner_dropout == 0 else dropout.at(-1)(x)

    def through_blocks(
        self,
        x: Float[Tensor, "B T D"],
        by_layer: Sequence[LayerMemory | None] | None = None,
        *,
        documents: Int[Tensor, "B S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return what the last block gives, before the last norm."""
        for i, (block, memory) in enumerate(zip(self.h, by_layer or [None] * len(self.h), strict=True)):
            of_block = None if dropout is None else dropout.at(i)
            if self.recompute == "full" and memory is None and torch.is_grad_enabled():
                x = checkpoint(block, x, None, documents, of_block, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, memory, documents, of_block)
        return x

    def dropout(self, n_rows: int, keys: Int[Tensor, " B"] | None) -> Dropout | None:
        """Return what is dropped of the rows of a batch; None outside training, and in a model without dropout."""
        if not self.training or self.config.dropout == 0:
            return None
        keys = torch.randint(2**62, (n_rows,)) if keys is None else keys
        return Dropout(self.config.dropout, keys.to(next(self.parameters()).device))

    def _positions(self, n_positions: int, memory: Memory | None) -> Float[Tensor, "*B T D"]:
        """Return embeddings of the next positions, row by row where the rows of a memory differ."""
        first = self.first_position
        at = torch.arange(first, first + n_positions) if memory is None else memory.positions(n_positions)
        return self.wpe(at.to(self.wpe.weight.device))

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Return the logits over the vocabulary for these hidden states."""
        return hidden @ self.output_weight.T

    def forward(self, tokens: Int[Tensor, "B T"], memory: Memory | None = None) -> Float[Tensor, "B T V"]:
        """Return logits at every position."""
        return self.logits(self.hidden(tokens, memory))

    def loss(
        self,
        tokens: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        documents: Int[Tensor, "B S"] | None = None,
        *,
        n_tokens: int | None = None,
        dropout_keys: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy in nats, summed over the targets and divided by `n_tokens`, or by their number.

        Targets of -1 do not count. Never holds the logits of all positions. Keys as `read` has them.
        """
        # Where the loss gives every row of the matrix a gradient, that of the rows looked up is added to it row by row.
        embedded = F.embedding(tokens, self.wte.weight, sparse=self.lm_head is None and tokens.device.type == "cpu")
        hidden = self.read(embedded, documents=documents, dropout_keys=dropout_keys)
        return mean_cross_entropy(hidden.flatten(0, 1), self.output_weight, targets.flatten(), n_tokens=n_tokens)


def count_parameters(config: GPTConfig) -> dict[str, int]:
    """Count the parameters of a model on the meta device: `total` and `non_embedding` (without wte and wpe)."""
    with torch.device("meta"):
        model = GPT(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.wte.weight.numel() + model.wpe.weight.numel()
    return {"total": total, "non_embedding": total - embedding}
