"""GELU in two approximations, x * sigmoid(x (p + q x^2)): by C++ for bfloat16 on a CPU, else by torch.

The tanh form is GPT-2's (Hendrycks and Gimpel 2016), the other one the Sparse Transformer's. In bfloat16 torch widens
each number, computes a tanh and rounds in passes of their own; in C++ it is one pass, in float32.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewshot.kernels.library import library

TANH = (2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715)  # p and q: 0.5 (1 + tanh u) = sigmoid(2 u)
SIGMOID = (1.702, 0.0)


def gelu(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return GELU in its tanh form, as GPT-2 has it."""
    return _compiled(x, *TANH) if _is_narrow(x) else F.gelu(x, approximate="tanh")


def sigmoid_gelu(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return the Sparse Transformer's approximation of GELU. Source: Child et al. 2019, section 5.2."""
    return _compiled(x, *SIGMOID) if _is_narrow(x) else x * torch.sigmoid(SIGMOID[0] * x)


def _is_narrow(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu"


@torch.library.custom_op("fewshot::gelu", mutates_args=(), schema="(Tensor x, float p, float q) -> Tensor")
def _compiled(x: Tensor, p: float, q: float) -> Tensor:
    if library().code is None:
        wide = x.float()
        return (wide * torch.sigmoid(wide * (p + q * wide * wide))).to(x.dtype)
    x = x.contiguous()
    out = torch.empty_like(x)
    call("fewshot_gelu", [x], p, q, out)
    return out


@torch.library.custom_op(
    "fewshot::gelu_backward", mutates_args=(), schema="(Tensor grad, Tensor x, float p, float q) -> Tensor"
)
def _differentiate(grad: Tensor, x: Tensor, p: float, q: float) -> Tensor:
    if library().code is None:
        wide = x.float()
        s = torch.sigmoid(wide * (p + q * wide * wide))
        return (grad.float() * (s + wide * s * (1 - s) * (p + 3 * q * wide * wide))).to(x.dtype)
    grad, x = grad.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    call("fewshot_gelu_backward", [grad, x], p, q, out)
    return out


def call(name: str, inputs: list[Tensor], p: float, q: float, out: Tensor) -> None:
    """Run a function of gelu.cpp, which is there; all tensors are contiguous."""
    code = library().code
    assert code is not None
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in inputs]
    numbers = (ctypes.c_int64(out.numel()), ctypes.c_float(p), ctypes.c_float(q))
    threads = ctypes.c_int64(torch.get_num_threads())
    getattr(code, name)(*pointers, *numbers, threads, ctypes.c_void_p(out.data_ptr()))


@_compiled.register_fake
def _(x: Tensor, p: float, q: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_differentiate.register_fake
def _(grad: Tensor, x: Tensor, p: float, q: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.p, ctx.q = inputs
    ctx.save_for_backward(x)


def _run_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (x,) = ctx.saved_tensors
    return _differentiate(grad, x, ctx.p, ctx.q), None, None


_compiled.register_autograd(_run_backward, setup_context=_save)
