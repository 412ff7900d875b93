"""Heads taken out of a model. In: a model and the names of heads. Out: the same model without them, for a while.

An ablated head gives a constant at every position. A constant behind a linear layer is a bias: so the head is taken out
of the layer's weights, and whatever the model is read by (kernels, prefix trees, caches) is read without it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.base.errors import BadValue, check
from fewshot.model.gpt import GPT
from fewshot.probe.recording import attentions


@dataclass(frozen=True, order=True)
class Head:
    """One attention head; its name is L1H0, layers and heads counted from 0."""

    layer: int
    head: int

    @classmethod
    def named(cls, name: str) -> Head:
        """Return the head of that name; raises BadValue."""
        numbers = re.fullmatch(r"L(\d{1,4})H(\d{1,4})", name.strip(), re.IGNORECASE | re.ASCII)
        if numbers is None:
            raise BadValue(f"{name!r} is no head: give layer and head, counted from 0, such as L1H0")
        return cls(int(numbers[1]), int(numbers[2]))

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


def heads_of(model: GPT) -> list[Head]:
    """Return all heads, layer by layer."""
    return [Head(layer, head) for layer in range(model.config.n_layers) for head in range(model.config.n_heads)]


def check_known(model: GPT, heads: Sequence[Head]) -> None:
    """Raise BadValue for a head that the model does not have."""
    known = heads_of(model)
    for head in heads:
        check(head in known, f"the model has no head {head}: its heads are {known[0]} to {known[-1]}")


@contextlib.contextmanager
def ablated(model: GPT, heads: Sequence[Head], means: Sequence[Float[Tensor, "H K"]] | None = None) -> Iterator[None]:
    """Let heads give what `means` has for them (see `mean_outputs`), or nothing, in this block.

    What was made of the model's weights before, such as a `PackedGPT`, still has the heads.
    """
    check_known(model, heads)
    projections = {layer: attentions(model)[layer].c_proj for layer in {head.layer for head in heads}}
    before = {layer: (proj.weight.detach().clone(), proj.bias.detach().clone()) for layer, proj in projections.items()}
    width = model.config.head_width
    try:
        with torch.no_grad():
            for head in dict.fromkeys(heads):
                projection = projections[head.layer]
                part = projection.weight[:, head.head * width : (head.head + 1) * width]
                if means is not None:
                    projection.bias.add_(part @ means[head.layer][head.head].to(part))
                part.zero_()
        yield
    finally:
        with torch.no_grad():
            for layer, (weight, bias) in before.items():
                projections[layer].weight.copy_(weight)
                projections[layer].bias.copy_(bias)
