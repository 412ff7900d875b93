"""Check log-probabilities before they become a token, a score or a figure."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fewshot.base.errors import NotFinite


def checked_logprobs(logprobs: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return log-probabilities that are about to be used as they are; any that is not finite raises `NotFinite`.

    One a position is enough: a NaN or +inf anywhere among a position's logits makes all its log-probabilities NaN or
    infinite. A token that the model rules out (-inf) is no fault as long as it is not the one that is used.
    """
    if not bool(logprobs.isfinite().all()):
        raise not_finite(logprobs)
    return logprobs


def not_finite(logprobs: Float[Tensor, "*N"]) -> NotFinite:
    """Return the error for log-probabilities of which some are not finite."""
    wrong = logprobs[~logprobs.isfinite()]
    return NotFinite(
        f"log-probabilities are not finite: {len(wrong)} of {logprobs.numel()}, the first {wrong[0].item()}; "
        "the weights are broken (train again, or take an older checkpoint), or the numbers of float16 overflow"
    )
