"""What each head does, as three numbers. In: a model and texts as tokens. Out: scores with their chance levels.

A score is the attention that a head gives from a position to its goals, on average over the positions that have any:

    previous    the position before
    same        every earlier position with the same token
    induction   every position just behind an earlier one with the same token: what may come next

Chance is the score of a head that gives all keys which its pattern allows the same weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot.base.errors import check
from fewshot.kernels.reference import attention_weights
from fewshot.model.gpt import GPT
from fewshot.probe.ablation import Head, heads_of
from fewshot.probe.recording import watching

KINDS = ("previous", "same", "induction")


@dataclass(frozen=True)
class HeadScores:
    """What one head does."""

    head: Head
    pattern: str  # of its layer and head
    scores: Mapping[str, float]  # by KINDS
    chance: Mapping[str, float]


def goals(tokens: Int[Tensor, "B T"]) -> dict[str, Bool[Tensor, "B T T"]]:
    """Return for each kind of score which keys (last axis) are goals of which query."""
    same = tokens[:, :, None] == tokens[:, None, :]
    behind = torch.zeros_like(same)
    behind[:, :, 1:] = same.tril(-1)[:, :, :-1]
    places = torch.arange(tokens.shape[1], device=tokens.device)
    before = (places[:, None] - places == 1).expand_as(same)
    return dict(zip(KINDS, (before, same.tril(-1), behind), strict=True))


@torch.inference_mode()
def score_heads(model: GPT, texts: Sequence[Sequence[int]], *, last_only: bool = False) -> list[HeadScores]:
    """Return the scores of all heads over all positions of the texts, or over the last position of each.

    A kind without a single position that has goals scores 0, as its chance does.
    """
    check(len(texts) > 0 and all(texts), "no text to score heads on: give at least one token")
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    sums = torch.zeros(2, len(KINDS), n_layers, n_heads, dtype=torch.float64)  # by heads, by chance
    counts = torch.zeros(len(KINDS), dtype=torch.float64)
    for text in texts:
        tokens = torch.tensor([list(text)], device=model.wte.weight.device)
        wanted = goals(tokens)
        counted = torch.ones_like(tokens, dtype=torch.bool)
        counted[:, : -1 if last_only else 0] = False
        asked = {kind: counted & wanted[kind].any(dim=2) for kind in KINDS}
        counts += torch.tensor([float(asked[kind].sum()) for kind in KINDS])
        even = _even_weights(model, tokens.shape[1])

        def add(
            layer: int,
            weights: Float[Tensor, "1 H T T"],
            _: Tensor,
            wanted: Mapping[str, Tensor] = wanted,
            asked: Mapping[str, Tensor] = asked,
            even: Sequence[Tensor] = even,
        ) -> None:
            for number, kind in enumerate(KINDS):
                of_goals = (wanted[kind] & asked[kind][:, :, None])[:, None]
                for place, attention in enumerate((weights, even[layer])):
                    sums[place, number, layer] += (attention * of_goals).sum(dim=(0, 2, 3)).double().cpu()

        with watching(model, add):
            model.hidden(tokens)
    means = (sums / counts.clamp(min=1)[:, None, None]).tolist()
    schedule = model.config.schedule()

    def by_kind(which: int, head: Head) -> dict[str, float]:
        return {kind: means[which][number][head.layer][head.head] for number, kind in enumerate(KINDS)}

    return [
        HeadScores(head, schedule.for_layer(head.layer).for_head(head.head).text, by_kind(0, head), by_kind(1, head))
        for head in heads_of(model)
    ]


def _even_weights(model: GPT, n: int) -> list[Float[Tensor, "1 H T T"]]:
    """Return the attention of each layer if every allowed key had the same weight."""
    empty = torch.zeros(1, model.config.n_heads, n, 1, device=model.wte.weight.device)
    return [attention_weights(empty, empty, model.config.schedule().for_layer(i)) for i in range(model.config.n_layers)]
