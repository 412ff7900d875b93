"""Checks of tensors that several packages need. The only file of this package that imports torch at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            least, most = extremes(tensor)
            if not (torch.isfinite(least) & torch.isfinite(most)):
                return name
    return None


def extremes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value of a floating-point tensor; a NaN anywhere makes both NaN."""
    values = tensor.detach()
    if values.element_size() == 1:
        values = values.float()  # torch compares no 8-bit floats
    return torch.aminmax(values)
