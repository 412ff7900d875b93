"""Log-probabilities of completions. In: a model and token spans. Out: one `Score` a span. Knows no text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import ContextTooLong, check
from fewshot.evaluate.task import Normalisation
from fewshot.model.config import GPTConfig

LOGIT_ROWS = 1024  # positions whose logits are held at once: 200 MB of float32 with GPT-3's vocabulary


@runtime_checkable
class LanguageModel(Protocol):
    """What scoring asks of a model: causal hidden states, and logits of some of them."""

    @property
    def config(self) -> GPTConfig:
        """The shape; its n_ctx bounds a span."""
        ...

    def hidden(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Hidden states after the last norm; position t has read tokens up to t alone."""
        ...

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Scores over the vocabulary."""
        ...

    def parameters(self) -> Iterable[Tensor]:
        """The weights, which tell the device."""
        ...


@dataclass(frozen=True)
class Span:
    """A token sequence of which `tokens[start:]` is to be scored; something must stand before it (start >= 1)."""

    tokens: tuple[int, ...]
    start: int

    def __post_init__(self) -> None:
        check(
            1 <= self.start < len(self.tokens),
            f"tokens from {self.start} of {len(self.tokens)} cannot be scored: at least one must stand before them",
        )


@dataclass(frozen=True)
class Score:
    """How a model takes to one completion."""

    logprob: float  # nats, summed over the completion's tokens
    n_tokens: int
    greedy: bool  # every token of the completion is the model's first choice


@torch.inference_mode()
def score(model: LanguageModel, spans: Sequence[Span], *, batch_size: int) -> list[Score]:
    """Scores of the spans, in their order; independent of the batch size.

    Batches are sorted by length and padded on the right, which a causal model cannot see; spans that share all that
    the model reads (choices of one token each) share one forward pass. Logits are computed for completion positions
    only. Raises ContextTooLong for a span longer than n_ctx + 1 (the last token is not read).
    """
    check(batch_size >= 1, f"batch_size is {batch_size}, must be at least 1")
    readers: dict[tuple[int, ...], list[int]] = {}
    for index, span in enumerate(spans):
        readers.setdefault(span.tokens[:-1], []).append(index)
    rows = sorted(readers, key=len, reverse=True)  # the longest first: what does not fit in memory fails at once
    if rows and len(rows[0]) > model.config.n_ctx:
        raise ContextTooLong(len(rows[0]), model.config.n_ctx)
    scores: dict[int, Score] = {}
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        asked = [(row, index) for row, tokens in enumerate(batch) for index in readers[tokens]]
        scores.update(_score_batch(model, batch, [(row, index, spans[index]) for row, index in asked]))
    return [scores[index] for index in range(len(spans))]


def _score_batch(
    model: LanguageModel, batch: Sequence[Sequence[int]], asked: Sequence[tuple[int, int, Span]]
) -> dict[int, Score]:
    """Scores by span index; `asked` holds (row of the batch, span index, span)."""
    device = next(iter(model.parameters())).device
    tokens = torch.zeros(len(batch), len(batch[0]), dtype=torch.long)
    for row, ids in enumerate(batch):
        tokens[row, : len(ids)] = torch.tensor(ids)
    places = [(row, position) for row, _, span in asked for position in range(span.start - 1, len(span.tokens) - 1)]
    targets = [token for _, _, span in asked for token in span.tokens[span.start :]]
    row_of, position_of = torch.tensor(places, device=device).T
    hidden = model.hidden(tokens.to(device))[row_of, position_of]
    logprobs: list[float] = []
    greedy: list[bool] = []
    for states, goals in zip(
        hidden.split(LOGIT_ROWS), torch.tensor(targets, device=device).split(LOGIT_ROWS), strict=True
    ):
        logits = model.logits(states).float()
        logprobs += (logits.gather(1, goals[:, None])[:, 0] - logits.logsumexp(1)).tolist()
        greedy += (logits.argmax(1) == goals).tolist()
    found: dict[int, Score] = {}
    end = 0
    for _, index, span in asked:
        begin, end = end, end + len(span.tokens) - span.start
        found[index] = Score(sum(logprobs[begin:end]), end - begin, all(greedy[begin:end]))
    return found


def normalise(conditional: Score, normalisation: Normalisation, unconditional: Score | None = None) -> float:
    """The number that choices are compared by: sum of nats, nats per token, or nats above the unconditional ones.

    "unconditional" is log P(completion | context) - log P(completion | answer context).
    Source: Brown et al. 2020, section 2.4.
    """
    if normalisation == "unconditional":
        assert unconditional is not None, "the unconditional scores are computed for this normalisation"
        return conditional.logprob - unconditional.logprob
    return conditional.logprob / conditional.n_tokens if normalisation == "token" else conditional.logprob
