"""Log-probabilities of tokens and of the likeliest others. In: logits. Out: a `TokenScore` a row."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fewshot.base.errors import NotFinite
from fewshot.generate.request import MOST_TOP, TokenScore
from fewshot.model.logprobs import not_finite


def score_tokens(
    logits: Float[Tensor, "R V"],
    tokens: Sequence[int],
    n_top: Sequence[int],
    others: Sequence[Sequence[int]] | None = None,
) -> list[TokenScore | NotFinite]:
    """Return for each row the log-probability of its token, of its `n_top` likeliest ones and of `others`, in nats.

    A row is computed as if it were alone: all rows look for equally many of the likeliest. A row whose token's is not
    finite gives the error.
    """
    logprobs = logits.float().log_softmax(dim=-1)
    own = logprobs[range(len(tokens)), list(tokens)]
    values: list[list[float]] = [[]] * len(tokens)
    indices: list[list[int]] = [[]] * len(tokens)
    if any(n_top):
        values, indices = (part.tolist() for part in logprobs.topk(min(MOST_TOP, logprobs.shape[1]), dim=-1))
    scores: list[TokenScore | NotFinite] = []
    for row, (logprob, is_finite) in enumerate(zip(own.tolist(), own.isfinite().tolist(), strict=True)):
        if not is_finite:
            scores.append(not_finite(own[row]))
            continue
        top = tuple(zip(indices[row][: n_top[row]], values[row][: n_top[row]], strict=True))
        given = tuple(logprobs[row, list(others[row])].tolist()) if others and others[row] else ()
        scores.append(TokenScore(logprob, top, given))
    return scores
