"""In which type the matrix products are computed, and how many rows go through the model at once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from fewshot.model.config import GPTConfig
from fewshot.model.plan import activation_bytes


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The type of the matrix products: float32, or bfloat16 under autocast; and why it was taken."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """The type as the configuration has it."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self, device: str, *, enabled: bool = True) -> contextlib.AbstractContextManager[object]:
        """Return the context to run forward in."""
        if self.dtype == torch.float32 or not enabled:
            return contextlib.nullcontext()
        return torch.autocast(device, dtype=self.dtype)


def possible_precisions(wanted: str, device: str) -> list[Precision]:
    """Return what "auto" may become on this device, the simplest first; of another `wanted`, that alone."""
    if wanted != "auto":
        return [Precision(dtype=getattr(torch, wanted), reason="as configured")]
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype, reason = (torch.bfloat16, "the GPU has it") if fast else (torch.float32, "the GPU has no bfloat16")
        return [Precision(dtype=dtype, reason=reason)]
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return [Precision(dtype=torch.float32, reason="the processor has no bfloat16 instructions")]
    return [Precision(dtype=dtype, reason="the processor has it") for dtype in (torch.float32, torch.bfloat16)]


def fitting_rows(config: GPTConfig, *, free_bytes: int, recompute: str) -> int:
    """Return how many rows have activations that fit in a quarter of the free memory; at least 1."""
    return max(1, free_bytes // 4 // activation_bytes(config, recompute=recompute))
