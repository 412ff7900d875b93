"""A prompt with how to complete it, and the finished completion. Knows no model and no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewshot.base.errors import check
from fewshot.base.rng import seed_of
from fewshot.generate.sampling import GREEDY, Sampling

FinishReason = Literal["stop", "length"]
MOST_TOP = 20


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how to complete it; requests with different settings may share a batch."""

    prompt: Sequence[int]  # token ids, at least one
    max_tokens: int
    sampling: Sampling = GREEDY
    stop: Sequence[str] = ()  # the completion ends before the first of these texts
    top_logprobs: int = 0  # likeliest tokens whose log-probabilities are told at every place
    logprob_tokens: Sequence[int] = ()  # further tokens whose log-probabilities are told at every written place
    prompt_logprobs: bool = False  # whether the prompt's tokens are scored too
    n_unscored: int = 1  # tokens at the prompt's beginning that are not scored then; the first cannot be
    seed: int = 0
    place: int = 0  # tells requests with the same seed apart: each place draws other numbers
    key: str = ""  # whose it is: prompts share what was read only with others of the same key
    slide: bool = False  # where the context is full, drop its oldest half and go on; else the completion ends there

    def __post_init__(self) -> None:
        least = 0 if self.prompt_logprobs else 1
        check(self.max_tokens >= least, f"max_tokens is {self.max_tokens}, must be at least {least}")
        check(
            0 <= self.top_logprobs <= MOST_TOP,
            f"top_logprobs is {self.top_logprobs}, must be in 0..{MOST_TOP}",
        )
        check(self.n_unscored >= 1, f"n_unscored is {self.n_unscored}, must be at least 1")
        check(not isinstance(self.stop, str), f"stop is the text {self.stop!r}; give a list of texts")
        check(all(self.stop), "a stop string is empty; give at least one character")
        check(
            len(self.prompt) > 0,
            "the prompt is empty; give at least one token (<|endoftext|> starts a fresh document)",
        )
        object.__setattr__(self, "prompt", tuple(self.prompt))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "logprob_tokens", tuple(self.logprob_tokens))

    def draw(self, position: int) -> float:
        """Return the uniform number in [0, 1) that chooses the token at this position of the text, prompt included.

        It depends on (seed, place, position) alone, so a request draws the same numbers in another batch, in another
        engine, and when it is stopped and continued with what was written as part of its prompt.
        """
        return (seed_of("draw", self.seed, self.place, position) >> 10) / 2**53


@dataclass(frozen=True)
class TokenScore:
    """What a model thought at one place of a text, in nats: of the token there, and of others that were asked for."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, the likeliest first
    others: tuple[float, ...] = ()  # of `logprob_tokens`


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What followed a prompt; `text` ends before the stop string, `tokens` and `scores` include it.

    `prompt_scores` are those of the prompt's tokens behind the first `n_unscored`, if they were asked for.
    """

    text: str
    tokens: tuple[int, ...]
    scores: tuple[TokenScore, ...]
    finish_reason: FinishReason
    prompt_scores: tuple[TokenScore, ...] = ()

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The log-probability of each token, in nats: the model's own, before temperature."""
        return tuple(score.logprob for score in self.scores)
