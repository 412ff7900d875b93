"""Residuals of one text in another: patching, and task vectors. In: a model and texts as tokens. Out: vectors, logits.

A task vector is the mean residual behind a block, where the answers of prompts with demonstrations begin, less that of
the same questions without any. Added to the residual of a bare question, or put in its place, it tells how much of the
task one vector carries. Source: Hendel et al. 2023 (in its place), Todd et al. 2023 (added).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot.base.errors import check
from fewshot.model.gpt import GPT


@torch.inference_mode()
def last_residuals(model: GPT, texts: Sequence[Sequence[int]]) -> Float[Tensor, "B L D"]:
    """Return the residual stream behind each block at the last position of each text."""
    rows: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
        rows.append(out[0, -1])

    handles = [block.register_forward_hook(keep) for block in model.h]
    try:
        for text in texts:
            model.hidden(torch.tensor([list(text)], device=model.wte.weight.device))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(rows).view(len(texts), len(handles), -1)


def task_vectors(model: GPT, prompts: Sequence[Sequence[int]], bare: Sequence[Sequence[int]]) -> Float[Tensor, "L D"]:
    """Return the vector behind each block: the mean over prompts less the mean over bare questions."""
    return last_residuals(model, prompts).mean(0) - last_residuals(model, bare).mean(0)


@contextlib.contextmanager
def patched(
    model: GPT, layer: int, vector: Float[Tensor, " D"], *, replacing: bool = False, position: int = -1
) -> Iterator[None]:
    """Add a vector to the residual behind block `layer` at one position of what is read whole in this block.

    With `replacing` it takes the residual's place.
    """
    n_layers = model.config.n_layers
    check(0 <= layer < n_layers, f"there is no layer {layer}: the model's are 0 to {n_layers - 1}")

    def change(_: nn.Module, __: tuple[Tensor, ...], out: Float[Tensor, "B T D"]) -> Tensor:
        changed = out.clone()
        changed[:, position] = vector if replacing else changed[:, position] + vector
        return changed

    handle = model.h[layer].register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def next_tokens(model: GPT, texts: Sequence[Sequence[int]]) -> list[int]:
    """Return the likeliest next token of each text, read whole, as `patched` needs it."""
    device = model.wte.weight.device
    return [int(model(torch.tensor([list(text)], device=device))[0, -1].argmax()) for text in texts]
