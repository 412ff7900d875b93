"""The decoding loop: token ids in, token ids out, one step at a time, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import ContextTooLong
from fewshot.generate.next_logits import next_logits
from fewshot.generate.request import Request
from fewshot.generate.sampling import RowSampling, choose_tokens
from fewshot.model.cache import Cache
from fewshot.model.gpt import GPT
from fewshot.model.logprobs import checked_logprobs


@torch.inference_mode()
def decode(
    model: GPT,
    requests: Sequence[Request],
    *,
    n_vocab: int | None = None,
    use_cache: bool = True,
    slide: bool = False,
) -> Iterator[tuple[Int[Tensor, " B"], Float[Tensor, " B"]]]:
    """Yield, step by step, the next token of every request and its log-probability in nats.

    Prompts may have different lengths, requests different sampling. `max_tokens` and `stop` are left to the caller, who
    ends the iteration. Without `slide` it also ends when the context of every row is full; a row that was full before
    is idle, and what it yields has no meaning. With `slide` the oldest half of a row's context is dropped each time it
    is full, without end. `n_vocab` is the tokenizer's, where the model's vocabulary is padded beyond it. Without the
    cache each step reads the whole text again: the definition, for tests.
    """
    n_ctx = model.config.n_ctx
    for request in requests:
        if len(request.prompt) > n_ctx:
            raise ContextTooLong(len(request.prompt), n_ctx)
    sampling = RowSampling.of([request.sampling for request in requests], model.wte.weight.device)
    positions = [len(request.prompt) for request in requests]  # of the next token in the whole text
    texts = [list(request.prompt) for request in requests]
    unread = [list(request.prompt) for request in requests]  # what the cache has not read yet
    cache = model.new_cache(len(texts)) if use_cache else None
    while True:
        logits = next_logits(model, unread if use_cache else texts, cache)[:, :n_vocab]
        tokens = choose_tokens(logits, sampling, _draws(requests, positions))
        logprobs = logits.float().log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
        yield tokens, checked_logprobs(logprobs)
        positions = [position + 1 for position in positions]
        unread = [[token] for token in tokens.tolist()]
        for row, text in enumerate(texts):
            if len(text) < n_ctx:
                text.append(unread[row][0])
            elif slide:
                texts[row] = [*text, unread[row][0]][-max(1, n_ctx // 2) :]
                if cache is not None:
                    cache.take_row(row, _read(model, texts[row][:-1]))
            else:
                unread[row] = []
        if not any(unread):
            return


def _draws(requests: Sequence[Request], positions: Sequence[int]) -> Float[Tensor, " B"]:
    """Return the random number of each row, 0 for a greedy one, which needs none."""
    draws = [
        request.draw(position) if request.sampling.temperature > 0 else 0.0
        for request, position in zip(requests, positions, strict=True)
    ]
    return torch.tensor(draws, dtype=torch.float64)


def _read(model: GPT, text: Sequence[int]) -> Cache:
    """Return a cache of one row that has read `text`."""
    cache = model.new_cache(1)
    if text:
        model.hidden(torch.tensor([list(text)], device=model.wte.weight.device), cache)
    return cache
