"""GELU and its like for inference, the same to the bit wherever a number stands.

torch computes the numbers that fill no whole vector, at the end of a thread's part, by another function. Here it is C++
on a CPU that has a compiler, else torch row by row.
"""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot.kernels.elementwise.activations import Activation
from fewshot.kernels.elementwise.gelu import SIGMOID, TANH, sigmoid_gelu
from fewshot.kernels.library import library


def invariant(activation: Activation) -> Activation:
    """Return the form of `activation`, one of elementwise/activations.py, for float32 rows without gradients."""
    kind, p, q = form(activation)

    def run(x: Float[Tensor, "*M F"]) -> Float[Tensor, "*M F"]:
        if x.device.type != "cpu":
            return activation(x)
        x, code = x.contiguous(), library().code
        if code is None:
            return torch.stack([activation(row) for row in x.flatten(0, -2)]).view(x.shape)
        out = torch.empty_like(x)
        code.fewshot_activate_float32(
            ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(x.numel()), ctypes.c_int64(kind), ctypes.c_float(p),
            ctypes.c_float(q), ctypes.c_int64(torch.get_num_threads()), ctypes.c_void_p(out.data_ptr()),
        )  # fmt: skip
        return out

    return run


def form(activation: Activation) -> tuple[int, float, float]:
    """Return what gelu.cpp knows an activation by: 0 and p, q of x * sigmoid(x * (p + q * x * x)), 1 GELU, 2 ReLU."""
    if activation is F.gelu:
        return 1, 0.0, 0.0
    if activation is F.relu:
        return 2, 0.0, 0.0
    return (0, *(SIGMOID if activation is sigmoid_gelu else TANH))
