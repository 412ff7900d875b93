"""Attention by torch's FlexAttention: it computes the blocks of 128 x 128 pairs in which the pattern allows any.

Bands and blocks gain from that; a stride leaves no block empty up to a stride of 128, and few beyond. On CUDA forward
and backward, on a CPU forward only. Without `torch.compile` torch would hold all scores, so an eager call goes through
a compiled function of its own, one graph a pattern whatever the lengths (and one for single queries); within a compiled
model it becomes part of the model's graph.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.fx.experimental import _config as shapes
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from fewshot.kernels.compiler import compiler_problem
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Requirements
from fewshot.kernels.reference import check_inputs
from fewshot.patterns.intervals import pairs_in_blocks
from fewshot.patterns.pattern import Pattern
from fewshot.patterns.schedule import parse

BLOCK = 128  # positions of a block, FlexAttention's default: its kernels' tiles divide it
TABLES = tuple(  # of a BlockMask; "full" blocks are computed without asking the mask
    f"{full}{side}_{what}" for side in ("kv", "q") for full in ("", "full_") for what in ("num_blocks", "indices")
)
LEAST_WIDTH = 16  # Triton multiplies no narrower matrices
GRAPHS = 64  # compiled graphs that torch may hold; its own limit of 8 is soon reached by patterns and number types


def supports(requirements: Requirements) -> str | None:
    """Return why the kernel cannot be used, or None if it can."""
    if requirements.device not in ("cpu", "cuda"):
        return f"FlexAttention computes on cpu and cuda, not on {requirements.device}"
    if requirements.device == "cpu" and requirements.training:
        return "FlexAttention has no backward on a CPU"
    if requirements.device == "cpu" and requirements.documents:
        # torch 2.13: a mask that indexes a tensor of open length becomes C++ with undeclared names
        return "torch's compiler fails on FlexAttention with documents on a CPU"
    if requirements.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        dtype = str(requirements.dtype).removeprefix("torch.")
        return f"FlexAttention computes float32, bfloat16 and float16, not {dtype}"
    if requirements.dropout:
        return "FlexAttention has no dropout on attention weights"
    if requirements.second_order:
        return "FlexAttention has no second derivative"
    if requirements.device == "cuda":
        return None if importlib.util.find_spec("triton") else "FlexAttention needs Triton, which is not installed"
    if not torch.cpu._is_avx2_supported():
        return "FlexAttention needs AVX2 on a CPU"
    return compiler_problem("cpu")


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    pattern: Pattern,
    *,
    q_start: int = 0,
    documents: Int[Tensor, "B S"] | None = None,
    dropout: Dropout | None = None,
) -> Float[Tensor, "B H T K"]:
    """Return attention as `interface.Attend` defines it."""
    assert not dropout, "supports() refuses dropout"
    check_inputs(q, k, v, q_start, documents)
    width = q.shape[3]
    if width < LEAST_WIDTH:
        q, k, v = (F.pad(x, (0, LEAST_WIDTH - width)) for x in (q, k, v))
    where = (pattern.text, q.shape[1], q.shape[2], k.shape[2], q_start, documents is not None)
    if torch.compiler.is_compiling():
        return _attend(q, k, v, pattern, _lay_blocks(*where, q.device), documents, width)
    # Numbers of a pattern stay constants of the graph: dividing by what is not known costs much. Lengths come from the
    # shapes and stay open, even if T equals S at first.
    graph = torch._dynamo.config.patch(specialize_int=True, recompile_limit=GRAPHS)
    with graph, shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        return _compiled(q, k, v, pattern, _blocks(*where, q.device), documents, width)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, blocks: list[Tensor], documents: Tensor | None, width: int
) -> Tensor:
    """Compute attention: what is compiled. `blocks` are those of `_blocks`, `width` is the heads' without padding."""
    q_start, *tables = blocks

    def readable(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        position = query + q_start
        allowed = pattern.allows(position, key, h)
        return allowed if documents is None else allowed & (documents[b, position] == documents[b, key])

    named: dict[str, Any] = dict(zip(TABLES, tables, strict=True))
    mask = BlockMask((q.shape[2], k.shape[2]), **named, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=readable)
    return flex_attention(q, k, v, block_mask=mask, scale=width**-0.5)[..., :width]


_compiled = torch.compile(_attend, dynamic=True, fullgraph=True)


# ---- which blocks hold a pair ---------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _blocks(
    text: str, n_heads: int, n_queries: int, n_keys: int, q_start: int, documents: bool, device: torch.device
) -> list[Tensor]:
    """Return the position of query row 0, and BlockMask's TABLES, as tensors: a graph holds for any of their values."""
    (pattern,) = parse(text).patterns
    kinds = pattern.for_heads(n_heads) if pattern.needs_heads else pattern.by_head[:1]
    pairs = np.stack([pairs_in_blocks(kind, n_queries, n_keys, BLOCK, q_start) for kind in kinds])
    pairs = pairs[np.arange(n_heads if pattern.needs_heads else 1) % len(kinds)]
    short = [max(0, 2 - n) for n in pairs.shape[1:]]  # a table of size 1 would need a graph of its own
    pairs = np.pad(pairs, ((0, 0), (0, short[0]), (0, short[1])))
    whole = (pairs == BLOCK * BLOCK) & (not documents)
    tables = [_listed(which) for which in ((pairs > 0) & ~whole, whole)]
    tables += [_listed(which.swapaxes(1, 2)) for which in ((pairs > 0) & ~whole, whole)]
    arrays = [np.int32(q_start), *(array[None] for table in tables for array in table)]
    return [torch.as_tensor(array, device=device) for array in arrays]


def _listed(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of blocks how many are to be computed, and all their numbers, those to be computed first."""
    numbers = np.argsort(~which, axis=-1, kind="stable").astype(np.int32)
    return which.sum(axis=-1, dtype=np.int32), numbers


@torch.library.custom_op(
    "fewshot::flex_blocks",
    mutates_args=(),
    schema="(str pattern, int n_heads, int n_queries, int n_keys, int q_start, bool documents, Device device) "
    "-> Tensor[]",
)
def _lay_blocks(*where: Any) -> list[Tensor]:
    """Return `_blocks` for a traced model; cloned, as a graph may write over what its operators return."""
    return [tensor.clone() for tensor in _blocks(*where)]


@_lay_blocks.register_fake
def _(
    text: str, n_heads: int, n_queries: int, n_keys: int, q_start: int, documents: bool, device: torch.device
) -> list[Tensor]:
    (pattern,) = parse(text).patterns
    H, N, M = n_heads if pattern.needs_heads else 1, max(2, -(-n_queries // BLOCK)), max(2, -(-n_keys // BLOCK))
    sizes = [(), *2 * [(1, H, N), (1, H, N, M)], *2 * [(1, H, M), (1, H, M, N)]]
    return [torch.empty(size, dtype=torch.int32, device=device) for size in sizes]
