"""Which simple reader a model predicts like. In: a model and texts as tokens. Out: distances to named readers.

    uniform    every token alike
    unigram    as often as it occurred in the text so far
    copying    what came next after earlier occurrences of the present token; unigram where there was none

A distance is the total variation between two predictions of the next token: 0 where they are the same, 1 where
no token is likely to both. Source of the idea: Edelman et al. 2024 (n-gram counts beside a model over its training).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import check
from fewshot.model.gpt import GPT
from fewshot.probe.scores import goals

READERS = ("uniform", "unigram", "copying")


def predictions(tokens: Int[Tensor, " T"], n_vocab: int) -> dict[str, Float[Tensor, "T V"]]:
    """Return what each reader predicts behind every position of a text, by READERS."""
    there = F.one_hot(tokens, n_vocab).float()
    unigram = there.cumsum(0) / torch.arange(1, len(tokens) + 1, device=tokens.device)[:, None]
    behind = goals(tokens[None])["induction"][0].float()
    counts = behind.sum(1, keepdim=True)
    copying = torch.where(counts > 0, behind @ there / counts.clamp(min=1), unigram)
    return dict(zip(READERS, (torch.full_like(there, 1 / n_vocab), unigram, copying), strict=True))


@torch.inference_mode()
def distances(model: GPT, texts: Sequence[Sequence[int]], *, last_only: bool = False) -> dict[str, float]:
    """Return the mean distance to each reader over all positions of the texts, or over the last one of each."""
    check(len(texts) > 0 and all(texts), "no text to compare readers on: give at least one token")
    sums, n = dict.fromkeys(READERS, 0.0), 0
    for text in texts:
        tokens = torch.tensor(list(text), device=model.wte.weight.device)
        scored = slice(-1 if last_only else 0, None)
        predicted = model(tokens[None])[0, scored].float().softmax(-1)
        n += len(predicted)
        for name, reader in predictions(tokens, predicted.shape[-1]).items():
            sums[name] += 0.5 * (predicted - reader[scored]).abs().sum().item()
    return {name: total / n for name, total in sums.items()}
