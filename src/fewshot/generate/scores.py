"""Log-probabilities of tokens and of the likeliest others. In: logits. Out: a `TokenScore` a row."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fewshot.generate.request import MOST_TOP, TokenScore
from fewshot.model.logprobs import checked_logprobs


def score_tokens(
    logits: Float[Tensor, "R V"],
    tokens: Sequence[int],
    n_top: Sequence[int],
    others: Sequence[Sequence[int]] | None = None,
) -> list[TokenScore]:
    """Return for each row the log-probability of its token, of its `n_top` likeliest ones and of `others`, in nats.

    A row is computed as if it were alone: all rows look for equally many of the likeliest. Raises if what is not finite
    would be told.
    """
    logprobs = logits.float().log_softmax(dim=-1)
    own = checked_logprobs(logprobs[range(len(tokens)), list(tokens)]).tolist()
    if not any(n_top) and not any(others or ()):
        return [TokenScore(logprob) for logprob in own]
    values, indices = (part.tolist() for part in logprobs.topk(min(MOST_TOP, logprobs.shape[1]), dim=-1))
    return [
        TokenScore(
            own[row],
            tuple(zip(indices[row][: n_top[row]], values[row][: n_top[row]], strict=True)),
            tuple(logprobs[row, list(others[row])].tolist()) if others and others[row] else (),
        )
        for row in range(len(own))
    ]
