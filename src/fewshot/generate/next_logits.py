"""Logits of the next token of several texts at once: what beam search asks of a model, and how our GPT does it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.model.paged_cache import CachedText, PagedCache, PagedMemory


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
    """Texts of a GPT, with a KV cache; the tokens that all prompts begin with are read once."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        weight = model.wte.weight
        dtype = model.cache_dtype if isinstance(model, PackedGPT) else weight.dtype
        self.cache = PagedCache(model.config, dtype=dtype, device=weight.device)
        self.texts: list[CachedText] = []

    def start(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Read the prompts and return scores for the token after each."""
        shared = n_shared(prompts)
        first = self.cache.new_text()
        if shared:
            self._read([first], [prompts[0][:shared]])
        self.texts = [self._copy(first) for _ in prompts]
        self.cache.drop(first)
        return self._read(self.texts, [prompt[shared:] for prompt in prompts])

    def go_on(self, rows: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Keep these rows, add a token to each, and return scores for the next one."""
        before, kept = self.texts, set[int]()
        self.texts = []
        for row in rows:
            self.texts.append(self._copy(before[row]) if row in kept else before[row])
            kept.add(row)
        for row in set(range(len(before))) - kept:
            self.cache.drop(before[row])
        return self._read(self.texts, [[token] for token in tokens])

    def _copy(self, text: CachedText) -> CachedText:
        twin = self.cache.copy(text, text.length)
        assert twin is not None
        return twin

    def _read(self, texts: Sequence[CachedText], pieces: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Add a piece to each text; return scores for the token after it."""
        memory = PagedMemory(self.cache, texts, [len(piece) for piece in pieces])
        tokens = torch.tensor([list(itertools.chain(*pieces))], device=self.model.wte.weight.device)
        hidden = self.model.hidden(tokens, memory)[0]
        for text in texts:
            self.cache.trim(text)
        ends = itertools.accumulate(len(piece) for piece in pieces)
        return self.model.logits(hidden[[end - 1 for end in ends]])


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
