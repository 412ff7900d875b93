"""Text out of a model: prompts in, completions out, whole or streamed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fewshot.base.errors import check
from fewshot.base.rng import python_rng
from fewshot.generate.decode import decode
from fewshot.generate.sampling import GREEDY, Sampling
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What followed a prompt; `text` ends before the stop string, `tokens` and `logprobs` (nats) include it."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


class _Row:
    """One completion as it grows."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], max_tokens: int) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.stops = [string.encode() for string in stop]
        self.longest = max(map(len, self.stops), default=0)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.bytes = b""
        self.finish_reason: Literal["stop", "length"] | None = None

    def add(self, token: int, logprob: float) -> None:
        """Take one more token; sets `finish_reason` when it ends the completion."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token == self.tokenizer.eot:
            self.finish_reason = "stop"
            return
        piece = self.tokenizer.decode_bytes([token])
        since = max(0, len(self.bytes) - self.longest)
        self.bytes += piece
        ends = [at for at in (self.bytes.find(stop, since) for stop in self.stops) if at >= 0]
        if ends:
            self.bytes = self.bytes[: min(ends)]
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.max_tokens:
            self.finish_reason = "length"

    def safe_length(self) -> int:
        """Return bytes that can be shown now: all but a tail that may be the beginning of a stop string."""
        if self.finish_reason is not None:
            return len(self.bytes)
        return len(self.bytes) - max(
            (n for stop in self.stops for n in range(1, len(stop)) if self.bytes.endswith(stop[:n])), default=0
        )

    def completion(self) -> Completion:
        """Return the finished row."""
        return Completion(
            text=self.bytes.decode("utf-8", errors="replace"),
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            finish_reason=self.finish_reason or "length",
        )


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
    """Complete every prompt (token ids); completions end at `<|endoftext|>`, a stop string, or `max_tokens`.

    Prompts of about the same length run as one batch. A row's text depends on (seed, its place in `prompts`), never
    on the batch. Without `slide` a completion also ends, with reason "length", where the context is full.
    Raises ContextTooLong for a prompt longer than n_ctx.
    """
    _check(max_tokens, stop)
    check(batch_size >= 1, f"batch_size is {batch_size}, must be at least 1")
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    done: dict[int, Completion] = {}
    for start in range(0, len(by_length), batch_size):
        group = by_length[start : start + batch_size]
        rows = {i: _Row(tokenizer, stop, max_tokens if slide else _room(model, prompts[i], max_tokens)) for i in group}
        steps = decode(
            model,
            [prompts[i] for i in group],
            sampling=sampling,
            draws=[python_rng("completion", seed, i) for i in group],
            n_vocab=tokenizer.n_vocab,
            slide=slide,
        )
        for tokens, logprobs in steps:
            for i, token, logprob in zip(group, tokens.tolist(), logprobs.tolist(), strict=True):
                if rows[i].finish_reason is None:
                    rows[i].add(token, logprob)
            if all(row.finish_reason for row in rows.values()):
                break
        done.update({i: row.completion() for i, row in rows.items()})
    return [done[i] for i in range(len(prompts))]


def _room(model: GPT, prompt: Sequence[int], max_tokens: int) -> int:
    """Return tokens that can follow until the context is full: the last one need not be read again."""
    return min(max_tokens, model.config.n_ctx - len(prompt) + 1)


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
    _check(max_tokens, stop)
    row, shown = _Row(tokenizer, stop, max_tokens), 0
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    steps = decode(
        model,
        [prompt],
        sampling=sampling,
        draws=[python_rng("completion", seed, place)],
        n_vocab=tokenizer.n_vocab,
        slide=slide,
    )
    for tokens, logprobs in steps:
        row.add(int(tokens), float(logprobs))
        until = row.safe_length()
        piece = decoder.decode(row.bytes[shown:until])
        shown = until
        if piece:
            yield piece
        if row.finish_reason is not None:
            break
    tail = decoder.decode(row.bytes[shown:], final=True)
    if tail:
        yield tail


def _check(max_tokens: int, stop: Sequence[str]) -> None:
    check(max_tokens >= 1, f"max_tokens is {max_tokens}, must be at least 1")
    check(not isinstance(stop, str), f"stop is the text {stop!r}; give a list of texts")
    check(all(stop), "a stop string is empty; give at least one character")
