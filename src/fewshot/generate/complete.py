"""Text out of a model: prompts in, completions out, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fewshot.base.errors import check
from fewshot.generate.decode import decode
from fewshot.generate.request import Completion, Request
from fewshot.generate.sampling import GREEDY, Sampling
from fewshot.generate.stop import RequestState
from fewshot.model.gpt import GPT
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
        Request(prompt=prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, seed=seed, place=place)
        for place, prompt in enumerate(prompts)
    ]
    return complete_requests(model, tokenizer, requests, batch_size=batch_size, slide=slide)


def complete_requests(
    model: GPT, tokenizer: Tokenizer, requests: Sequence[Request], *, batch_size: int = 32, slide: bool = False
) -> list[Completion]:
    """Return a completion of every request, in their order; each ends at `<|endoftext|>`, a stop string or max_tokens.

    Requests with prompts of about the same length run as one batch; no completion depends on the others in it. Without
    `slide` a completion also ends, with reason "length", where the context is full.
    Raises ContextTooLong for a prompt longer than n_ctx.
    """
    check(batch_size >= 1, f"batch_size is {batch_size}, must be at least 1")
    by_length = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))
    completions: dict[int, Completion] = {}
    for start in range(0, len(by_length), batch_size):
        group = by_length[start : start + batch_size]
        states = _new_states(model, tokenizer, [requests[i] for i in group], slide=slide)
        for _ in _advance(model, tokenizer, states, slide=slide):
            pass
        completions.update({i: state.completion() for i, state in zip(group, states, strict=True)})
    return [completions[i] for i in range(len(requests))]


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
    request = Request(prompt=prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, seed=seed, place=place)
    states = _new_states(model, tokenizer, [request], slide=slide)
    for _ in _advance(model, tokenizer, states, slide=slide):
        piece = states[0].next_text()
        if piece:
            yield piece


def _new_states(model: GPT, tokenizer: Tokenizer, requests: Sequence[Request], *, slide: bool) -> list[RequestState]:
    """Return a state for each request; without `slide` it ends where the context is full."""
    n_ctx = model.config.n_ctx  # the last token of a full context need not be read, so one more fits
    return [
        RequestState(request, tokenizer, n_free=None if slide else n_ctx - len(request.prompt) + 1)
        for request in requests
    ]


def _advance(model: GPT, tokenizer: Tokenizer, states: Sequence[RequestState], *, slide: bool) -> Iterator[None]:
    """Add a token to every unfinished state, and yield, until all are finished."""
    requests = [state.request for state in states]
    for tokens, logprobs in decode(model, requests, n_vocab=tokenizer.n_vocab, slide=slide):
        for state, token, logprob in zip(states, tokens.tolist(), logprobs.tolist(), strict=True):
            if state.finish_reason is None:
                state.add(token, logprob)
        yield
        if all(state.finish_reason for state in states):
            return
