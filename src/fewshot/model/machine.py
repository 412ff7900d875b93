"""How a model is computed on this machine: on which device, what its kernels must fit, and whether it is compiled."""

from __future__ import annotations

import torch

from fewshot.kernels.interface import Requirements
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT


def machine_device() -> str:
    """Return the kind of device to compute on: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def requirements_of(
    config: GPTConfig, *, device: str, dtype: torch.dtype, training: bool, documents: bool = False
) -> Requirements:
    """Return what a kernel must fit to compute the attention of a model, for its first pattern and whole contexts.

    Dropout on attention weights counts only in training. `documents`: whether attention stays within documents.
    """
    return Requirements(
        pattern=config.patterns[0],
        device=device,
        dtype=dtype,
        n_queries=config.n_ctx,
        n_keys=config.n_ctx,
        documents=documents,
        dropout=config.inner_dropout if training else 0.0,
        training=training,
        width=config.head_width,
    )


def compile_blocks(model: GPT) -> None:
    """Compile every block in place by `torch.compile`.

    Blocks with the same pattern share one compiled graph, so that a deep model compiles as fast as a shallow one.
    """
    n_patterns = len(model.config.patterns)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 8 * n_patterns)
    for block in model.h:
        block.compile(dynamic=False)
