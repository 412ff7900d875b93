"""The likeliest answer to each of many prompts, by beam search. In: prompts as tokens. Out: one `Written` a prompt.

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
from fewshot.generate.steps import Steps
from fewshot.model.logprobs import checked_logprobs
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a model wrote; `text` ends before the stop string, `tokens` and `logprob` (nats, summed) include it."""

    text: str
    tokens: tuple[int, ...]
    logprob: float
    ended: bool  # by itself, not for want of room


@dataclass(frozen=True)
class _Hypothesis:
    """A text as it grows."""

    tokens: tuple[int, ...] = ()
    logprob: float = 0.0
    bytes: bytes = b""
    ended: bool = False
    row: int = 0  # of the model, while it lives


@dataclass
class _Search:
    """The search for one prompt's answer."""

    room: int  # tokens that may be written
    live: list[_Hypothesis]
    best: _Hypothesis | None = None
    best_score: float = field(default=float("-inf"))

    def offer(self, hypothesis: _Hypothesis, score: float) -> None:
        """Keep it if it is the best that has ended."""
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
) -> list[Written]:
    """Return the best answer found for each prompt; they are read as one batch of `beams` rows a prompt.

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
        logits = steps.go_on([one.row for one in hypotheses], [one.tokens[-1] for one in hypotheses])
        for row, (search, at) in enumerate(living):
            search.live[at] = replace(search.live[at], row=row)
    return [_written(search) for search in searches]


def _extend(
    search: _Search,
    logprobs: Tensor,
    tokenizer: Tokenizer,
    stops: Sequence[bytes],
    beams: int,
    penalty: Callable[[int], float],
) -> None:
    """One more token for each living hypothesis; of the best `beams` those that end are offered, others live on."""
    rows = logprobs[[one.row for one in search.live]]
    totals = rows + torch.tensor([one.logprob for one in search.live], device=rows.device)[:, None]
    n_best = min(2 * beams if beams > 1 else 1, totals.numel())
    values, places = (each.tolist() for each in totals.flatten().topk(n_best))
    grown: list[_Hypothesis] = []
    for rank, (value, place) in enumerate(zip(values, places, strict=True)):
        which, token = divmod(place, rows.shape[1])
        new = _grow(search.live[which], token, value, tokenizer, stops)
        if new.ended or len(new.tokens) >= search.room:
            if rank < beams:
                search.offer(new, value / penalty(len(new.tokens)))
        elif len(grown) < beams:
            grown.append(new)
    highest = max((one.logprob / penalty(search.room) for one in grown), default=float("-inf"))
    search.live = grown if highest > search.best_score else []


def _grow(before: _Hypothesis, token: int, logprob: float, tokenizer: Tokenizer, stops: Sequence[bytes]) -> _Hypothesis:
    if token == tokenizer.eot:
        return _Hypothesis((*before.tokens, token), logprob, before.bytes, True, before.row)
    if tokenizer.pieces_stand_alone:
        text = before.bytes + tokenizer.decode_bytes([token])
    else:  # as a whole: a token may be written by what it follows
        text = tokenizer.decode_bytes([*before.tokens, token])
    ends = [at for at in map(text.find, stops) if at >= 0]
    return _Hypothesis((*before.tokens, token), logprob, text[: min(ends)] if ends else text, bool(ends), before.row)


def _written(search: _Search) -> Written:
    best = search.best
    assert best is not None, "a search ends with an answer"
    return Written(
        text=best.bytes.decode("utf-8", errors="replace"), tokens=best.tokens, logprob=best.logprob, ended=best.ended
    )
