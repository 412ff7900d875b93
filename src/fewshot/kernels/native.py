"""Attention over key intervals by a C++ kernel: on a CPU, time and memory follow the pattern's allowed pairs.

The kernel is `cpp/attention.cpp`: tensors are passed as pointers and strides. All sums and the softmax are in float32.
Products of bfloat16 use the processor's instruction for them; where it has none, numbers are widened on reading.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Requirements
from fewshot.kernels.library import library
from fewshot.kernels.operator import make_operator, phases_by_head, positions_first, ready
from fewshot.kernels.reference import check_inputs
from fewshot.patterns.intervals import Phase
from fewshot.patterns.pattern import Pattern


def supports(requirements: Requirements) -> str | None:
    """Return why the kernel cannot be used, or None if it can."""
    if requirements.device != "cpu":
        return f"it computes on the CPU, not on {requirements.device}"
    if requirements.dtype not in (torch.float32, torch.bfloat16):
        return f"it computes float32 and bfloat16, not {str(requirements.dtype).removeprefix('torch.')}"
    if requirements.dropout:
        return "it has no dropout on attention weights"
    if requirements.second_order:
        return "it has no second derivative"
    return library().problem


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
    return _attend(q, k, v, pattern.text, q_start, documents)[0] if q.numel() else q.clone()


# ---- what is passed to it -----------------------------------------------------------------------------------------


class _Work(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n_rows", "n_heads", "width", "head_first", "head_step", "q_start")),
        *((name, ctypes.c_int64) for name in ("is_bf16", "n_intervals", "n_threads")),
        ("scale", ctypes.c_float),
        *(
            (name, ctypes.c_void_p)
            for name in ("query_ends", "key_ends", "queries", "keys", "low", "high", "documents")
        ),
        ("n_keys", ctypes.c_int64),
        ("query_seen", ctypes.c_void_p),
        ("key_seen", ctypes.c_void_p),
    )


class _View(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("row", "head", "position")))

    @classmethod
    def of(cls, tensor: Tensor) -> Any:
        assert tensor.stride(3) == 1
        return ctypes.byref(cls(tensor.data_ptr(), *tensor.stride()[:3]))


@dataclasses.dataclass(frozen=True, eq=False)
class _Flat:
    """The intervals of one phase, end to end."""

    query_ends: np.ndarray
    key_ends: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, phase: Phase) -> _Flat:
        def ends(lists: Sequence[np.ndarray]) -> np.ndarray:
            return np.cumsum([len(positions) for positions in lists], dtype=np.int64)

        def joined(lists: Sequence[np.ndarray]) -> np.ndarray:
            return np.ascontiguousarray(np.concatenate(lists), dtype=np.int32)

        queries, keys = (
            [interval.queries for interval in phase.intervals],
            [interval.keys for interval in phase.intervals],
        )
        low, high = [interval.low for interval in phase.intervals], [interval.high for interval in phase.intervals]
        return cls(ends(queries), ends(keys), joined(queries), joined(keys), joined(low), joined(high))


@lru_cache(maxsize=64)
def _plan(text: str, n_heads: int, n_queries: int, n_keys: int, q_start: int) -> list[tuple[slice, _Flat]]:
    """Return the phases of every kind of head, each with those heads."""
    by_head = phases_by_head(text, n_heads, n_queries, n_keys, q_start)
    return [(heads, _Flat.of(phase)) for heads, phases in by_head for phase in phases]


def _calls(q: Tensor, k: Tensor, text: str, q_start: int, documents: Tensor | None) -> Iterator[_Work]:
    """Yield a `_Work` for each phase; the arrays stay alive in the plan's cache."""
    B, H, T, K = q.shape
    for heads, flat in _plan(text, H, T, k.shape[2], q_start):
        yield _Work(
            n_rows=B, n_heads=H, width=K, head_first=heads.start, head_step=heads.step or 1, q_start=q_start,
            is_bf16=q.dtype == torch.bfloat16, n_intervals=len(flat.query_ends), n_threads=torch.get_num_threads(),
            scale=K**-0.5, query_ends=flat.query_ends.ctypes.data, key_ends=flat.key_ends.ctypes.data,
            queries=flat.queries.ctypes.data, keys=flat.keys.ctypes.data, low=flat.low.ctypes.data,
            high=flat.high.ctypes.data, documents=None if documents is None else documents.data_ptr(),
            n_keys=k.shape[2],
        )  # fmt: skip


def _fresh(like: Tensor) -> Tensor:
    """Return memory for a result in float32, uninitialised: the kernel writes all of it."""
    code = library().code
    assert code is not None
    room = positions_first(like.shape, like, torch.float32, zeros=False)
    code.fewshot_prefer_large_pages(ctypes.c_void_p(room.data_ptr()), ctypes.c_int64(room.nbytes))
    return room


def _wide(documents: Tensor | None) -> Tensor | None:
    return None if documents is None else documents.to(torch.int64).contiguous()


def _forward(
    q: Tensor, k: Tensor, v: Tensor, pattern: str, q_start: int, documents: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the result in q's type, and the log-sum-exp of each query's scores, base 2."""
    code = library().code
    assert code is not None
    q, k, v = ready(q, k, v)
    documents = _wide(documents)
    out = _fresh(q)
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    for work in _calls(q, k, pattern, q_start, documents):
        views = (_View.of(x) for x in (q, k, v, out))
        code.fewshot_attend(ctypes.byref(work), *views, ctypes.c_void_p(lse.data_ptr()), ctypes.c_int64(q.shape[2]))
    return out.to(q.dtype), lse


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, pattern: str, q_start: int,
    documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v."""
    code = library().code
    assert code is not None
    kind = q.dtype
    q, k, v, out, grad = ready(q, k, v, out, grad.to(kind))
    documents = _wide(documents)
    grads = [_fresh(x) for x in (q, k, v)]
    seen = [x.new_zeros(x.shape[:3], dtype=torch.bool) for x in (q, k)]
    for work in _calls(q, k, pattern, q_start, documents):
        work.query_seen, work.key_seen = (flags.data_ptr() for flags in seen)
        code.fewshot_differentiate(
            ctypes.byref(work), *(_View.of(x) for x in (q, k, v, out, grad)), ctypes.c_void_p(lse.data_ptr()),
            *(_View.of(gradient) for gradient in grads), ctypes.c_int64(q.shape[2]),
        )  # fmt: skip
    if not seen[1].all():  # keys that no query reads
        for gradient in grads[1:]:
            gradient.masked_fill_(~seen[1][..., None], 0.0)
    grad_q, grad_k, grad_v = (gradient.to(kind) for gradient in grads)
    return grad_q, grad_k, grad_v


_attend = make_operator("native", _forward, _backward)
