"""How the next token is chosen from logits. Pure functions; randomness comes in as numbers in [0, 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import check

LEAST = torch.finfo(torch.float32).tiny  # below it float32 divides by nothing, and compares with nothing
MOST_TEMPERATURE = 1e6


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Temperature 0 is greedy. `top_k` keeps the k likeliest tokens, `top_p` the smallest set of probability p."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check(self.temperature >= 0, f"temperature is {self.temperature}, must be at least 0 (0 is greedy)")
        check(
            self.temperature <= MOST_TEMPERATURE,
            f"temperature is {self.temperature}, must be at most 1e6 (tokens are as good as equal then)",
        )
        check(self.top_k is None or self.top_k >= 1, f"top_k is {self.top_k}, must be at least 1")
        check(self.top_p is None or 0 < self.top_p <= 1, f"top_p is {self.top_p}, must be in (0, 1]")


GREEDY = Sampling(temperature=0.0)


def probabilities(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """Return the distribution that tokens are drawn from; temperature first, then top-k, then top-p, as in OpenAI's
    code.
    """
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    logits = logits.float()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / max(sampling.temperature, LEAST)  # its limit is greedy
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        kept, where = logits.topk(sampling.top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, where, kept)
    probs = logits.softmax(dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, where = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # probability of the likelier ones: the first is always kept
        ordered = ordered.where(before < max(sampling.top_p, LEAST), torch.zeros(()).to(ordered))
        probs = torch.zeros_like(probs).scatter(-1, where, ordered)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return probs


def choose_tokens(logits: Float[Tensor, "B V"], sampling: Sampling, draws: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Return one token a row; `draws` are uniform numbers in [0, 1), looked up in the cumulated distribution."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    cumulated = probabilities(logits, sampling).double().cumsum(dim=-1)
    point = draws.to(cumulated)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, point, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
