"""All transformer blocks of a model in one call: between them no Python, which would take longer than small products.

What a row gives is the same to the bit whatever rows stand beside it. It is C++, for a CPU that has a compiler;
elsewhere the blocks' own modules are called.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot.kernels.invariant.attention import PageBatch, Pages, Units, pages_of
from fewshot.kernels.invariant.linear import PackedLinear
from fewshot.kernels.library import library


class _Linear(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n_inputs", "n_outputs", "kind")),
        *((name, ctypes.c_void_p) for name in ("packed", "scale", "bias")),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("epsilon", ctypes.c_double))


class _Block(ctypes.Structure):
    _fields_ = (
        ("norm_first", ctypes.c_int64),
        ("activation", ctypes.c_int64),
        ("gelu_p", ctypes.c_double),
        ("gelu_q", ctypes.c_double),
        *((name, _Norm) for name in ("ln_1", "ln_2")),
        *((name, _Linear) for name in ("c_attn", "c_proj", "c_fc", "c_out")),
    )


class _Part(ctypes.Structure):
    _fields_ = (("pages", Pages), ("cache", ctypes.c_void_p), ("slots", ctypes.c_void_p))


@dataclass(frozen=True)
class BlockWeights:
    """The parts of one block, as its module has them; queries, keys and values are equally wide."""

    norm_first: bool
    activation: tuple[int, float, float]  # as `invariant.gelu.form` gives it
    ln_1: nn.LayerNorm
    ln_2: nn.LayerNorm
    c_attn: PackedLinear
    c_proj: PackedLinear
    c_fc: PackedLinear
    c_out: PackedLinear


@dataclass(frozen=True)
class PagePart:
    """Heads of a layer that have one pattern: a cache, what the new positions read of it, and where they go."""

    cache: Float[Tensor, "P U 2 16 C"]
    units: Units
    batch: PageBatch
    slots: Int[Tensor, " N"]


class Blocks:
    """Blocks that C++ can run, with the weights that they have now: those are kept, whatever becomes of the modules."""

    def __init__(self, blocks: Sequence[BlockWeights]) -> None:
        self._weights = blocks
        norms = [norm for block in blocks for norm in (block.ln_1, block.ln_2)]
        self._kept = [part.detach() for norm in norms for part in (norm.weight, norm.bias)]
        self._blocks = (_Block * len(blocks))(*map(_block, blocks))

    def __reduce__(self) -> tuple[type[Blocks], tuple[Sequence[BlockWeights]]]:
        """Make a copy anew: addresses of this one's tensors would be those of another's."""
        return Blocks, (self._weights,)

    def run(
        self, x: Float[Tensor, "N D"], layers: Sequence[Sequence[PagePart]], *, n_heads: int, width: int
    ) -> Float[Tensor, "N D"]:
        """Return what the last block gives; writes keys and values of the N positions. `width` is that of a head."""
        code = library().code
        assert code is not None
        out = x.clone(memory_format=torch.contiguous_format)
        parts = [part for layer in layers for part in layer]
        n_parts = (ctypes.c_int64 * len(layers))(*map(len, layers))
        structures = (_Part * len(parts))()
        for structure, part in zip(structures, parts, strict=True):
            structure.pages = pages_of(part.cache, part.units, n_heads, width, part.batch)
            structure.cache, structure.slots = part.cache.data_ptr(), part.slots.data_ptr()
        code.fewshot_blocks(
            self._blocks, ctypes.c_int64(len(layers)), structures, n_parts, ctypes.c_int64(len(x)),
            ctypes.c_int64(torch.get_num_threads()), ctypes.c_void_p(out.data_ptr()),
        )  # fmt: skip
        return out


def _block(weights: BlockWeights) -> _Block:
    norms = {name: _norm(getattr(weights, name)) for name in ("ln_1", "ln_2")}
    linears = {name: _linear(getattr(weights, name)) for name in ("c_attn", "c_proj", "c_fc", "c_out")}
    form, p, q = weights.activation
    return _Block(norm_first=weights.norm_first, activation=form, gelu_p=p, gelu_q=q, **norms, **linears)


def _norm(norm: nn.LayerNorm) -> _Norm:
    return _Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)


def _linear(linear: PackedLinear) -> _Linear:
    return _Linear(
        linear.n_inputs,
        linear.n_outputs,
        linear.kind,
        *(None if part is None else part.data_ptr() for part in (linear.packed, linear.scale, linear.bias)),
    )
