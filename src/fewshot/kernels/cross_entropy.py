"""The loss of rows of logits and its gradient: by the C++ of this package on a CPU that has a compiler, else by torch.

In C++ the gradient takes the place of the logits, row by row while they are in the processor's cache; torch makes
copies in float32. Both compute in float32.
"""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels.library import library

IGNORED = -1  # the target of a position that does not count
COPIES = 8  # bytes a logit that torch takes beside the logits: two in float32


def is_native(device: str, dtype: torch.dtype) -> bool:
    """Return whether `cross_entropy` computes such logits in their place."""
    return device == "cpu" and dtype in (torch.float32, torch.bfloat16) and library().problem is None


def bytes_per_logit(device: str, dtype: torch.dtype) -> int:
    """Return the bytes that one logit takes until it has become a gradient."""
    return dtype.itemsize + (0 if is_native(device, dtype) else COPIES)


def cross_entropy(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], *, scale: float, with_gradient: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"]]:
    """Return the sum of the losses in nats, and the gradient of `scale` times that sum, in the type of the logits.

    The logits are used up: the gradient may stand in their place. Targets of -1 count nothing.
    """
    if is_native(logits.device.type, logits.dtype):
        return _native(logits, targets, scale, with_gradient)
    logprobs = F.log_softmax(logits.float(), dim=-1)
    total = F.nll_loss(logprobs, targets, ignore_index=IGNORED, reduction="sum")
    if not with_gradient:
        return total, logprobs
    error = logprobs.exp_()  # softmax minus one at the target
    error[torch.arange(len(targets), device=targets.device), targets] -= 1.0
    return total, error.mul_((targets != IGNORED)[:, None] * scale).to(logits.dtype)


def _native(logits: Tensor, targets: Tensor, scale: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    code = library().code
    assert code is not None
    logits, targets = logits.contiguous(), targets.to(torch.int64).contiguous()
    n_rows, n_vocab = logits.shape
    losses = torch.empty(n_rows, dtype=torch.float64)
    code.fewshot_cross_entropy(
        ctypes.c_void_p(logits.data_ptr()), ctypes.c_int64(logits.dtype == torch.bfloat16), ctypes.c_int64(n_rows),
        ctypes.c_int64(n_vocab), ctypes.c_void_p(targets.data_ptr()), ctypes.c_float(scale),
        ctypes.c_int64(with_gradient), ctypes.c_int64(torch.get_num_threads()), ctypes.c_void_p(losses.data_ptr()),
    )  # fmt: skip
    return losses.sum(), logits
