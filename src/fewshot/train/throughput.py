"""What this machine can do, measured, so that a run without a given length ends in a sensible time."""

from __future__ import annotations

import functools
import time

import torch

from fewshot.base.machine import free_memory


@functools.cache
def matmul_flops_per_second(
    device: str, *, size: int = 768, dtype: torch.dtype = torch.float32, seconds: float = 0.3
) -> float:
    """Return floating-point operations a second of products of size x size matrices: the machine's practical peak."""
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


def free_memory_bytes(device: str) -> int:
    """Return memory that can be taken now."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return free_memory()
