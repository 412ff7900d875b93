"""GELU for inference, the same to the bit wherever a number stands.

torch computes the numbers that fill no whole vector, at the end of a thread's part, by another function. Here it is C++
on a CPU that has a compiler, else torch row by row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot.kernels.elementwise import gelu as elementwise
from fewshot.kernels.library import library

Gelu = Callable[[Tensor], Tensor]


def invariant(gelu: Gelu) -> Gelu:
    """Return the form of `gelu`, one of elementwise/gelu.py, for float32 rows without gradients."""
    p, q = constants(gelu)

    def run(x: Float[Tensor, "*M F"]) -> Float[Tensor, "*M F"]:
        if x.device.type != "cpu":
            return gelu(x)
        x = x.contiguous()
        if library().code is None:
            return torch.stack([gelu(row) for row in x.flatten(0, -2)]).view(x.shape)
        out = torch.empty_like(x)
        elementwise.call("fewshot_gelu_float32", [x], p, q, out)
        return out

    return run


def constants(gelu: Gelu) -> tuple[float, float]:
    """Return p and q of the form x * sigmoid(x * (p + q * x * x)) that `gelu`, one of elementwise/gelu.py, has."""
    return elementwise.TANH if gelu is elementwise.gelu else elementwise.SIGMOID
