"""A linear layer whose output for a row is the same to the bit whatever rows stand beside it.

Matrix libraries choose the order of their sums by the number of rows. Here it is fixed: by C++ on a CPU that has a
compiler, else by torch in tiles of equal size. Weights are float32, bfloat16 (inputs are rounded to it, sums are
float32) or int8 with a scale for each output (inputs stay float32).
"""

from __future__ import annotations

import ctypes
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewshot.base.errors import look_up
from fewshot.kernels.library import library

WeightType = Literal["float32", "bfloat16", "int8"]
WEIGHT_TYPES: tuple[WeightType, ...] = get_args(WeightType)
COLUMNS = 16  # outputs of a packed block; torch gets tiles of as many rows, with all lengths multiples of it


class PackedLinear(nn.Module):
    """A linear layer for inference; float32 in and out. The weights are packed as `weight_type`, which is a copy."""

    def __init__(self, weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None, weight_type: str) -> None:
        super().__init__()
        self.kind = look_up("weight type", weight_type, {name: i for i, name in enumerate(WEIGHT_TYPES)})
        self.n_outputs, self.n_inputs = weight.shape
        self.bias = None if bias is None else bias.detach().float().contiguous()
        values, self.scale = weight.detach(), None
        if weight_type == "int8":
            self.scale = values.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
            values = (values / self.scale[:, None]).round()
        self.is_native = weight.device.type == "cpu" and library().problem is None
        if self.is_native:
            self.packed = _packed(values, weight_type)
        elif weight.device.type == "cpu":
            values = values.to(torch.bfloat16) if weight_type == "bfloat16" else values
            self.packed = _padded(values.float())
        else:
            self.packed = values.to(torch.bfloat16 if weight_type == "bfloat16" else torch.float32)

    @property
    def n_bytes(self) -> int:
        """Bytes that the layer holds."""
        return sum(part.nbytes for part in (self.packed, self.scale, self.bias) if part is not None)

    def forward(self, x: Float[Tensor, "*M K"]) -> Float[Tensor, "*M N"]:
        """Return x times the transposed weights, plus the bias."""
        rows = x.reshape(-1, self.n_inputs)
        out = self._native(rows.float().contiguous()) if self.is_native else self._by_torch(rows)
        return out.view(*x.shape[:-1], self.n_outputs)

    def _native(self, x: Tensor) -> Tensor:
        code = library().code
        assert code is not None
        out = x.new_empty(len(x), self.n_outputs)
        code.fewshot_rows(
            ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(len(x)), ctypes.c_int64(self.n_inputs),
            ctypes.c_int64(self.n_outputs), ctypes.c_void_p(self.packed.data_ptr()), ctypes.c_int64(self.kind),
            _pointer(self.scale), _pointer(self.bias), ctypes.c_int64(torch.get_num_threads()),
            ctypes.c_void_p(out.data_ptr()),
        )  # fmt: skip
        return out

    def _by_torch(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            x = x.to(torch.bfloat16) if WEIGHT_TYPES[self.kind] == "bfloat16" else x
            tiles = _padded(x.float()).split(COLUMNS)
            out = torch.cat([F.linear(tile, self.packed) for tile in tiles])[: len(x), : self.n_outputs]
        else:
            out = F.linear(x.to(self.packed.dtype), self.packed).float()
        out = out if self.scale is None else out * self.scale
        return out if self.bias is None else out + self.bias


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _padded(matrix: Tensor) -> Tensor:
    """Return a matrix with zeros up to multiples of 16."""
    return F.pad(matrix, (0, -matrix.shape[1] % COLUMNS, 0, -matrix.shape[0] % COLUMNS))


def _packed(weight: Float[Tensor, "N K"], weight_type: str) -> Tensor:
    """Return the weights as rows.cpp reads them: blocks of 16 outputs, in each the inputs in their order."""
    weight = F.pad(weight, (0, weight.shape[1] % 2 if weight_type == "bfloat16" else 0, 0, -len(weight) % COLUMNS))
    blocks = weight.view(-1, COLUMNS, weight.shape[1])
    if weight_type == "bfloat16":
        return blocks.to(torch.bfloat16).unflatten(2, (-1, 2)).transpose(1, 2).contiguous()
    return blocks.transpose(1, 2).to(torch.int8 if weight_type == "int8" else torch.float32).contiguous()
