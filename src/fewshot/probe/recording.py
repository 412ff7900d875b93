"""Attention weights of a whole model while it reads. In: a model and token rows. Out: weights, layer by layer.

The model's own kernels go on computing its attention, so that its logits stay as they are; a wrapper around each
computes the weights beside them, in float32. It sees texts that are read whole: prefix trees attend without a kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Attend
from fewshot.kernels.reference import attention_weights
from fewshot.model.gpt import GPT
from fewshot.model.layers import Attention, TransformerBlock
from fewshot.patterns.pattern import Pattern

See = Callable[[int, Float[Tensor, "B H T S"], Float[Tensor, "B H T K"]], None]  # layer, weights, what heads give


@dataclass(frozen=True)
class WatchedKernel:
    """The kernel of one layer, as `kernels.interface.Attend`: shows the weights and what the heads read by them."""

    layer: int
    kernel: Attend
    see: See

    def __call__(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H S K"],
        v: Float[Tensor, "B H S K"],
        pattern: Pattern,
        *,
        q_start: int = 0,
        documents: Int[Tensor, "B S"] | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B H T K"]:
        """Return what the kernel returns."""
        mixed = self.kernel(q, k, v, pattern, q_start=q_start, documents=documents, dropout=dropout)
        self.see(self.layer, attention_weights(q, k, pattern, q_start=q_start, documents=documents), mixed)
        return mixed


def attentions(model: GPT) -> list[Attention]:
    """Return the attention of each layer."""
    return [block.attn for block in model.h if isinstance(block, TransformerBlock)]


@contextlib.contextmanager
def watching(model: GPT, see: See) -> Iterator[None]:
    """Show `see` the attention of every layer of what the model reads in this block."""
    layers = attentions(model)
    kernels = [layer.attend for layer in layers]
    try:
        for number, (layer, kernel) in enumerate(zip(layers, kernels, strict=True)):
            layer.attend = WatchedKernel(number, kernel, see)
        yield
    finally:
        for layer, kernel in zip(layers, kernels, strict=True):
            layer.attend = kernel


@torch.inference_mode()
def weights_of(model: GPT, tokens: Sequence[int]) -> list[Float[Tensor, "H T S"]]:
    """Return the attention weights of each layer for one text."""
    weights: list[Tensor] = []
    with watching(model, lambda _, its_weights, __: weights.append(its_weights[0])):
        model.hidden(torch.tensor([list(tokens)], device=model.wte.weight.device))
    return weights


@torch.inference_mode()
def mean_outputs(model: GPT, rows: Sequence[Sequence[int]]) -> list[Float[Tensor, "H K"]]:
    """Return what each head of each layer gives on average over all positions of some texts."""
    sums = [torch.zeros(()) for _ in model.h]

    def add(layer: int, _: Tensor, mixed: Float[Tensor, "B H T K"]) -> None:
        sums[layer] = sums[layer].to(mixed.device) + mixed.double().sum(dim=(0, 2))

    with watching(model, add):
        for row in rows:
            model.hidden(torch.tensor([list(row)], device=model.wte.weight.device))
    return [total / sum(map(len, rows)) for total in sums]
