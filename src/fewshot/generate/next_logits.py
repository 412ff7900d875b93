"""Logits of the next token of several texts at once: what beam search asks of a model, and how our GPT does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.model.cache import Cache
from fewshot.model.gpt import GPT


@runtime_checkable
class Steps(Protocol):
    """A batch of texts, one a row, that a model continues token by token."""

    def start(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Read the prompts, each at least one token, and return scores for the token after each."""
        ...

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Keep these rows, a row perhaps several times, add a token to each, and return scores for the next one."""
        ...


class GPTSteps:
    """Texts of a GPT, with a cache; the tokens that all prompts begin with are read once."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.cache: Cache | None = None

    def start(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Read the prompts and return scores for the token after each."""
        shared = n_shared(prompts)
        self.cache = self.model.new_cache(1 if shared else len(prompts))
        if shared:
            next_logits(self.model, [prompts[0][:shared]], self.cache)
            self.cache.select([0] * len(prompts))
        return next_logits(self.model, [prompt[shared:] for prompt in prompts], self.cache)

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Keep these rows, add a token to each, and return scores for the next one."""
        assert self.cache is not None, "start comes first"
        if list(rows) != list(range(len(self.cache.lengths))):
            self.cache.select(rows)
        return next_logits(self.model, [[token] for token in tokens], self.cache)


def n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    low, high = 0, min(len(a), len(b))  # a[:low] == b[:low], and no more than high are common
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def n_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with; each keeps at least one of its own, a single prompt all."""
    if len(prompts) < 2:
        return 0
    return min(n_common(min(map(tuple, prompts)), max(map(tuple, prompts))), min(map(len, prompts)) - 1)


def next_logits(model: GPT, pieces: Sequence[Sequence[int]], cache: Cache | None) -> Float[Tensor, "B V"]:
    """Return scores for the token after each piece.

    Shorter pieces are padded at their ends, which no position before can see.
    """
    device, counts = model.wte.weight.device, [len(piece) for piece in pieces]
    padded = torch.zeros(len(pieces), max(counts), dtype=torch.long)
    for row, piece in zip(padded, pieces, strict=True):
        row[: len(piece)] = torch.tensor(piece, dtype=torch.long)
    hidden = model.hidden(padded.to(device), cache, counts=counts)
    last = torch.tensor([max(0, count - 1) for count in counts], device=device)
    return model.logits(hidden[torch.arange(len(pieces), device=device), last])
