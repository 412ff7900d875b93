"""The decoding loop: token ids in, token ids out, one step at a time, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.generate.sampling import Sampling, choose_tokens
from fewshot.generate.steps import next_logits
from fewshot.model.cache import Cache
from fewshot.model.gpt import GPT
from fewshot.model.logprobs import checked_logprobs


@torch.inference_mode()
def decode(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    draws: Sequence[Random],
    n_vocab: int | None = None,
    use_cache: bool = True,
    slide: bool = False,
) -> Iterator[tuple[Int[Tensor, " B"], Float[Tensor, " B"]]]:
    """Yield, step by step, the next token of every row and its log-probability in nats.

    Prompts may have different lengths. Ends when the context of every row is full; a row that was full before is
    idle, and what it yields has no meaning. With `slide` it goes on without end: the oldest half of a row's context
    is dropped each time it is full. Every row draws from its own generator: its text does not depend on its neighbours.
    `n_vocab` is the tokenizer's, where the model's vocabulary is padded beyond it. Without the cache each step reads
    the whole text again: the definition, for tests.
    """
    n_ctx = model.config.n_ctx
    for prompt in prompts:
        if len(prompt) == 0:
            raise BadValue("the prompt is empty; give at least one token (<|endoftext|> starts a fresh document)")
        if len(prompt) > n_ctx:
            raise ContextTooLong(len(prompt), n_ctx)
    texts = [list(prompt) for prompt in prompts]
    fresh = [list(prompt) for prompt in prompts]  # what the cache has not read yet
    cache = model.new_cache(len(texts)) if use_cache else None
    while True:
        logits = next_logits(model, fresh if use_cache else texts, cache)[:, :n_vocab]
        tokens = choose_tokens(logits, sampling, torch.tensor([draw.random() for draw in draws], dtype=torch.float64))
        logprobs = logits.float().log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
        yield tokens, checked_logprobs(logprobs)
        fresh = [[token] for token in tokens.tolist()]
        for b, text in enumerate(texts):
            if len(text) < n_ctx:
                text.append(fresh[b][0])
            elif slide:
                texts[b] = [*text, fresh[b][0]][-max(1, n_ctx // 2) :]
                if cache is not None:
                    cache.take_row(b, _read(model, texts[b][:-1]))
            else:
                fresh[b] = []
        if not any(fresh):
            return


def _read(model: GPT, text: Sequence[int]) -> Cache:
    """Return a cache of one row that has read `text`."""
    cache = model.new_cache(1)
    if text:
        model.hidden(torch.tensor([list(text)], device=model.wte.weight.device), cache)
    return cache
