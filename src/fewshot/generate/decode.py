"""The decoding loop: token ids in, token ids out, one step at a time, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.generate.sampling import Sampling, choose_tokens
from fewshot.model.gpt import GPT


@torch.inference_mode()
def decode(
    model: GPT,
    prompts: Int[Tensor, "B T"],
    *,
    sampling: Sampling,
    draws: Sequence[Random],
    n_vocab: int | None = None,
    use_cache: bool = True,
    slide: bool = False,
) -> Iterator[tuple[Int[Tensor, " B"], Float[Tensor, " B"]]]:
    """Yield, step by step, the next token of every row and its log-probability in nats.

    Ends when the context is full, or goes on without end if `slide`: then the oldest half of the context is dropped
    each time it is full. Every row draws from its own generator, so its text does not depend on its neighbours.
    `n_vocab` is the tokenizer's, where the model's vocabulary is padded beyond it. Without the cache each step reads
    the whole text again: the definition, for tests.
    """
    n_rows, n_prompt = prompts.shape
    n_ctx = model.config.n_ctx
    if n_prompt == 0:
        raise BadValue("the prompt is empty; give at least one token (<|endoftext|> starts a fresh document)")
    if n_prompt > n_ctx:
        raise ContextTooLong(n_prompt, n_ctx)
    text, fresh = prompts, prompts
    cache = model.new_cache(n_rows) if use_cache else None
    while True:
        hidden = model.hidden(fresh if cache is not None else text, cache)
        logits = model.logits(hidden[:, -1])[:, :n_vocab]
        tokens = choose_tokens(logits, sampling, torch.tensor([draw.random() for draw in draws], dtype=torch.float64))
        logprobs = logits.float().log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
        yield tokens, logprobs
        fresh = tokens[:, None]
        text = torch.cat([text, fresh], dim=1)
        if text.shape[1] > n_ctx:
            if not slide:
                return
            text = fresh = text[:, -max(1, n_ctx // 2) :]
            cache = model.new_cache(n_rows) if use_cache else None
