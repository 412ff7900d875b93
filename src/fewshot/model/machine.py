"""How a model is computed on this machine: the device, how fast it is and what is free there, what its kernels must
fit, and whether it is compiled.
"""

from __future__ import annotations

import functools
import time

import torch

from fewshot.base.machine import free_memory
from fewshot.kernels.interface import Requirements
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT


def machine_device() -> str:
    """Return the kind of device to compute on: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def free_memory_bytes(device: str) -> int:
    """Return the bytes that can be taken on the device now."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return free_memory()


@functools.cache
def matmul_flops_per_second(
    device: str, *, size: int = 768, dtype: torch.dtype = torch.float32, seconds: float = 0.3
) -> float:
    """Return the measured floating-point operations a second of products of size x size matrices.

    This is the machine's practical peak, from which the time of a training run is estimated.
    """
    a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind(0)
    rates: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(rates) < 3:
        began = time.perf_counter()
        product = a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - began))
    assert product.shape == (size, size)
    return sorted(rates)[len(rates) // 2]


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
