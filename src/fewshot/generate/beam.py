"""The likeliest answer to each of many prompts, by beam search. In: prompts as tokens. Out: one `Completion` a prompt.

A hypothesis ends at `<|endoftext|>`, where its text holds a stop string, or when it is full. Its score is its
log-probability over ((5 + length) / 6) ** length_penalty. Source: Wu et al. 2016, equation 14; Brown et al. 2020,
section 2.4 (width 4, penalty 0.6). One beam is greedy decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fewshot.base.errors import check
from fewshot.generate.next_logits import Steps
from fewshot.generate.request import Completion, TokenScore
from fewshot.generate.stop import first_stop
from fewshot.model.logprobs import checked_logprobs
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True)
class _Hypothesis:
    """A text as it grows; `total` is its log-probability as the search sums it."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    total: float = 0.0
    bytes: bytes = b""
    ended: bool = False
    row: int = 0  # of the model, while it lives


@dataclass
class _Search:
    """The search for one prompt's answer."""

    max_tokens: int
    live: list[_Hypothesis]
    best: _Hypothesis | None = None  # of those that have ended
    best_score: float = field(default=float("-inf"))

    def offer(self, hypothesis: _Hypothesis, score: float) -> None:
        """Keep a hypothesis that has ended if it is the best so far."""
        if score > self.best_score:
            self.best, self.best_score = hypothesis, score


@torch.inference_mode()
def beam_search(
    steps: Steps,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    n_ctx: int,
    max_tokens: int,
    stop: Sequence[str] = (),
    beams: int = 4,
    length_penalty: float = 0.6,
) -> list[Completion]:
    """Return the best answer to each prompt; all are read as one batch of `beams` rows a prompt.

    A search ends as soon as no living hypothesis can overtake the best one that has ended.
    """
    check(beams >= 1, f"beams is {beams}, must be at least 1")
    check(length_penalty >= 0, f"length_penalty is {length_penalty}, must be at least 0")
    stops = [text.encode() for text in stop]

    def penalty(length: int) -> float:
        return float(((5 + length) / 6) ** length_penalty)

    searches = [
        _Search(min(max_tokens, n_ctx - len(prompt) + 1), [_Hypothesis(row=row)]) for row, prompt in enumerate(prompts)
    ]
    logits = steps.start(prompts)
    while True:
        logprobs = logits[:, : tokenizer.n_vocab].float().log_softmax(dim=-1)
        checked_logprobs(logprobs.amax(dim=-1))
        for search in searches:
            if search.live:
                _extend(search, logprobs, tokenizer, stops, beams, penalty)
        living = [(search, at) for search in searches for at in range(len(search.live))]
        if not living:
            break
        hypotheses = [search.live[at] for search, at in living]
        logits = steps.go_on(
            [hypothesis.row for hypothesis in hypotheses], [hypothesis.tokens[-1] for hypothesis in hypotheses]
        )
        for row, (search, at) in enumerate(living):
            search.live[at] = replace(search.live[at], row=row)
    return [_completion(search) for search in searches]


def _extend(
    search: _Search,
    logprobs: Tensor,
    tokenizer: Tokenizer,
    stops: Sequence[bytes],
    beams: int,
    penalty: Callable[[int], float],
) -> None:
    """Add one token to each living hypothesis; of the best `beams` those that end are offered, others live on."""
    rows = logprobs[[hypothesis.row for hypothesis in search.live]]
    totals = rows + torch.tensor([hypothesis.total for hypothesis in search.live], device=rows.device)[:, None]
    n_best = min(2 * beams if beams > 1 else 1, totals.numel())
    best_totals, indices = totals.flatten().topk(n_best)
    candidates = zip(best_totals.tolist(), indices.tolist(), rows.flatten()[indices].tolist(), strict=True)
    grown: list[_Hypothesis] = []
    for rank, (total, index, logprob) in enumerate(candidates):
        parent, token = divmod(index, rows.shape[1])
        extended = _grow(search.live[parent], token, logprob, total, tokenizer, stops)
        if extended.ended or len(extended.tokens) >= search.max_tokens:
            if rank < beams:
                search.offer(extended, total / penalty(len(extended.tokens)))
        elif len(grown) < beams:
            grown.append(extended)
    highest = max((hypothesis.total / penalty(search.max_tokens) for hypothesis in grown), default=float("-inf"))
    search.live = grown if highest > search.best_score else []


def _grow(
    parent: _Hypothesis, token: int, logprob: float, total: float, tokenizer: Tokenizer, stops: Sequence[bytes]
) -> _Hypothesis:
    """Return the parent with one more token."""
    tokens, logprobs = (*parent.tokens, token), (*parent.logprobs, logprob)
    if token == tokenizer.eot:
        return _Hypothesis(tokens, logprobs, total, parent.bytes, True, parent.row)
    if tokenizer.pieces_stand_alone:
        text = parent.bytes + tokenizer.decode_bytes([token])
    else:  # as a whole: a token may be written by what it follows
        text = tokenizer.decode_bytes(tokens)
    end = first_stop(text, stops)
    return _Hypothesis(tokens, logprobs, total, text[:end], end is not None, parent.row)


def _completion(search: _Search) -> Completion:
    best = search.best
    assert best is not None, "a search ends with an answer"
    return Completion(
        text=best.bytes.decode("utf-8", errors="replace"),
        tokens=best.tokens,
        scores=tuple(TokenScore(logprob) for logprob in best.logprobs),
        finish_reason="stop" if best.ended else "length",
    )
