"""A prompt with how to complete it, and the finished completion. Knows no model and no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewshot.base.errors import check
from fewshot.base.rng import seed_of
from fewshot.generate.sampling import GREEDY, Sampling

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how to complete it; requests with different settings may share a batch."""

    prompt: Sequence[int]  # token ids, at least one
    max_tokens: int
    sampling: Sampling = GREEDY
    stop: Sequence[str] = ()  # the completion ends before the first of these texts
    seed: int = 0
    place: int = 0  # tells requests with the same seed apart: each place draws other numbers

    def __post_init__(self) -> None:
        check(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}, must be at least 1")
        check(not isinstance(self.stop, str), f"stop is the text {self.stop!r}; give a list of texts")
        check(all(self.stop), "a stop string is empty; give at least one character")
        check(
            len(self.prompt) > 0,
            "the prompt is empty; give at least one token (<|endoftext|> starts a fresh document)",
        )
        object.__setattr__(self, "prompt", tuple(self.prompt))
        object.__setattr__(self, "stop", tuple(self.stop))

    def draw(self, position: int) -> float:
        """Return the uniform number in [0, 1) that chooses the token at this position of the text, prompt included.

        It depends on (seed, place, position) alone, so a request draws the same numbers in another batch, in another
        engine, and when it is stopped and continued with what was written as part of its prompt.
        """
        return (seed_of("draw", self.seed, self.place, position) >> 10) / 2**53


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What followed a prompt; `text` ends before the stop string, `tokens` and `logprobs` (nats) include it."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
