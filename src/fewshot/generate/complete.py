"""Text out of a model: prompts in, completions out, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fewshot.base.errors import check
from fewshot.generate.engine import CHUNK, Engine
from fewshot.generate.request import Completion, Request
from fewshot.generate.sampling import GREEDY, Sampling
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.model.paged_cache import PagedCache
from fewshot.tokenizer.vocab import Tokenizer


def complete(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
    slide: bool = False,
) -> list[Completion]:
    """Return a completion of every prompt (token ids), all with the same settings; see `complete_requests`.

    Equal prompts are sampled apart: the place in `prompts` is part of the key of the random numbers.
    """
    requests = [
        Request(prompt=prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, seed=seed, place=place, slide=slide)
        for place, prompt in enumerate(prompts)
    ]
    return complete_requests(model, tokenizer, requests, batch_size=batch_size)


def complete_requests(
    model: GPT, tokenizer: Tokenizer, requests: Sequence[Request], *, batch_size: int = 32
) -> list[Completion]:
    """Return a completion of every request, in their order; each ends at `<|endoftext|>`, a stop string or max_tokens.

    Up to `batch_size` are written at once; no completion depends on the others. Without `slide` a completion also ends,
    with reason "length", where the context is full. A model that is not packed is packed first, in float32.
    Raises ContextTooLong for a prompt longer than n_ctx.
    """
    check(batch_size >= 1, f"batch_size is {batch_size}, must be at least 1")
    engine = engine_for(model, tokenizer, requests, n_rows=batch_size)
    places = {engine.submit(request): place for place, request in enumerate(requests)}
    completions: dict[int, Completion] = {}
    while engine.busy:
        for number, state in engine.step():
            if state.ended:
                completions[places[number]] = state.completion()
    return [completions[place] for place in range(len(requests))]


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    seed: int = 0,
    place: int = 0,
    slide: bool = False,
) -> Iterator[str]:
    """Yield the text that `complete` gives the prompt at this place, piece by piece; every piece is valid UTF-8.

    A character whose bytes are not all there yet is held back, and so is a tail that may begin a stop string.
    """
    request = Request(
        prompt=prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, seed=seed, place=place, slide=slide
    )
    engine = engine_for(model, tokenizer, [request], n_rows=1)
    engine.submit(request)
    while engine.busy:
        for _, state in engine.step():
            if state.error is not None:
                raise state.error
            piece = state.next_text()
            if piece:
                yield piece


def engine_for(model: GPT, tokenizer: Tokenizer, requests: Sequence[Request], *, n_rows: int) -> Engine:
    """Return an engine with room for the `n_rows` largest of the requests at once."""
    packed = model if isinstance(model, PackedGPT) else PackedGPT(model)
    lengths = [
        packed.config.n_ctx if request.slide else len(request.prompt) + request.max_tokens for request in requests
    ]
    cache = PagedCache(packed.config, n_bytes=0, dtype=packed.cache_dtype)
    needs = sorted(cache.bytes_of_text(length, n_new=CHUNK) for length in lengths)
    return Engine(packed, tokenizer, cache_bytes=sum(needs[-n_rows:]), max_rows=n_rows)
