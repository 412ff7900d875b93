"""Compiles the Triton kernels for an H100, without one; prints of each its shared memory and its wgmma instructions."""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fewshot.kernels import triton_code
from fewshot.kernels.triton import HALF_ROOMY, Tiles


def source(kernel: Any, tiles: Tiles, width: int) -> ASTSource:
    constants = {
        "WIDTH": width, "PADDED": width, "QUERIES": tiles.queries, "KEYS": tiles.keys, "GATHER_Q": False,
        "GATHER_K": False, "JOIN": False, "DOCUMENTS": False, "PRECISION": "ieee",
    }  # fmt: skip
    lists = ("table", "lows", "highs", "queries", "keys", "documents")
    types = dict.fromkeys(lists, "*i32") | {
        "lse": "*fp32",
        "delta": "*fp32",
        "scale": "fp32",
        "width_scale": "fp32",
    }
    tensors = ("q", "k", "v", "out", "grad", "grad_q", "grad_k", "grad_v")
    types |= dict.fromkeys(tensors, "*bf16") | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    places = {name: (number,) for number, name in enumerate(kernel.arg_names)}
    aligned = [
        name for name, kind in signature.items()
        if kind.startswith("*") or (kind == "i32" and name not in triton_code.OPEN)
    ]  # fmt: skip
    return ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={places[name]: value for name, value in constants.items()},
        attrs={places[name]: [["tt.divisibility", 16]] for name in aligned},
    )


if __name__ == "__main__":
    width = int(sys.argv[1])
    kernels = [triton_code.attend_queries, triton_code.differentiate_queries, triton_code.differentiate_keys]
    for kernel, tiles in zip(kernels, HALF_ROOMY[width], strict=True):
        compiled = triton.compile(
            source(kernel, tiles, width),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": tiles.warps, "num_stages": tiles.stages},
        )
        print(kernel.fn.__name__, compiled.metadata.shared, compiled.asm["ptx"].count("wgmma.mma_async"))
