"""Attention over strips by a C++ kernel: on a CPU, time and memory follow the pattern's allowed pairs.

`native.cpp` is compiled by g++ or clang++ at first use (about a second) and kept in the user's cache. It needs no torch
header: tensors go over as pointers and strides, so one library serves every torch version. Products are in float32,
bfloat16 is widened on reading and rounded on writing.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.files import written_whole
from fewshot.kernels.need import Need
from fewshot.kernels.reference import check_positions
from fewshot.patterns.pattern import Pattern
from fewshot.patterns.schedule import parse
from fewshot.patterns.strips import Pass, passes

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared")


def supports(need: Need) -> str | None:
    """None, or the reason why not."""
    if need.device != "cpu":
        return f"it computes on the CPU, not on {need.device}"
    if need.dtype not in (torch.float32, torch.bfloat16):
        return f"it computes float32 and bfloat16, not {str(need.dtype).removeprefix('torch.')}"
    if need.dropout:
        return "it has no dropout on attention weights"
    if need.second_order:
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
    dropout: float = 0.0,
) -> Float[Tensor, "B H T K"]:
    """Attention as `need.Attend` says it."""
    assert not dropout, "supports() refuses dropout"
    check_positions(q, k, q_start)
    return _attend(q, k, v, pattern.text, q_start, documents)[0]


# ---- the library --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Library:
    """The compiled kernel, or why there is none."""

    code: ctypes.CDLL | None
    problem: str | None


@cache
def library() -> Library:
    """Compile `native.cpp`, or take it from the cache; the outcome is kept for the life of the process."""
    compiler = next(
        (path for name in (os.environ.get("CXX", ""), "g++", "clang++") if (path := shutil.which(name))), None
    )
    if compiler is None:
        return Library(None, "there is no C++ compiler (g++ or clang++) on the PATH")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    what = "\n".join([SOURCE.read_text(encoding="utf-8"), *FLAGS, version, platform.machine(), _processor()])
    target = _cache_folder() / f"native-{hashlib.sha256(what.encode()).hexdigest()[:16]}.so"
    try:
        if not target.is_file():
            with written_whole(target) as partial:
                command = [compiler, *FLAGS, str(SOURCE), "-o", str(partial)]
                subprocess.run(command, capture_output=True, text=True, check=True)
        return Library(ctypes.CDLL(str(target)), None)
    except subprocess.CalledProcessError as error:
        return Library(None, f"{compiler} could not compile {SOURCE.name}: {error.stderr.strip()[:200]}")
    except OSError as error:
        return Library(None, f"the compiled kernel cannot be kept or loaded: {error}")


def _cache_folder() -> Path:
    home = (
        os.environ.get("FEWSHOT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewshot"
    )
    return Path(home)


def _processor() -> str:
    """What -march=native looks at: a cache shared by different machines must not mix their code."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


# ---- what goes over -----------------------------------------------------------------------------------------------


class _Work(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n_rows", "n_heads", "width", "head_first", "head_step", "q_start")),
        *((name, ctypes.c_int64) for name in ("is_bf16", "n_strips", "n_threads")),
        ("scale", ctypes.c_float),
        *(
            (name, ctypes.c_void_p)
            for name in ("query_ends", "key_ends", "queries", "keys", "low", "high", "documents")
        ),
        ("n_keys", ctypes.c_int64),
    )


class _View(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("row", "head", "position")))

    @classmethod
    def of(cls, tensor: Tensor) -> Any:
        assert tensor.stride(3) == 1
        return ctypes.byref(cls(tensor.data_ptr(), *tensor.stride()[:3]))


@dataclasses.dataclass(frozen=True, eq=False)
class _Flat:
    """The strips of one pass, end to end."""

    query_ends: np.ndarray
    key_ends: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, one: Pass) -> _Flat:
        def ends(lists: Sequence[np.ndarray]) -> np.ndarray:
            return np.cumsum([len(each) for each in lists], dtype=np.int64)

        def joined(lists: Sequence[np.ndarray]) -> np.ndarray:
            return np.ascontiguousarray(np.concatenate(lists), dtype=np.int32)

        queries, keys = [strip.queries for strip in one.strips], [strip.keys for strip in one.strips]
        low, high = [strip.low for strip in one.strips], [strip.high for strip in one.strips]
        return cls(ends(queries), ends(keys), joined(queries), joined(keys), joined(low), joined(high))


@lru_cache(maxsize=64)
def _plan(text: str, n_queries: int, n_keys: int, q_start: int) -> list[tuple[int, int, list[_Flat]]]:
    """For each kind of head: the first, the step to the next, and its passes."""
    (pattern,) = parse(text).patterns
    step = len(pattern.by_head)
    return [
        (h, step, [_Flat.of(one) for one in passes(each, n_queries, n_keys, q_start)])
        for h, each in enumerate(pattern.by_head)
    ]


def _calls(q: Tensor, k: Tensor, text: str, q_start: int, documents: Tensor | None) -> Any:
    """One `_Work` a pass; the arrays stay alive in the plan's cache."""
    B, H, T, K = q.shape
    for first, step, flats in _plan(text, T, k.shape[2], q_start):
        for flat in flats if first < H else []:
            yield _Work(
                n_rows=B, n_heads=H, width=K, head_first=first, head_step=step, q_start=q_start,
                is_bf16=q.dtype == torch.bfloat16, n_strips=len(flat.query_ends), n_threads=torch.get_num_threads(),
                scale=K**-0.5, query_ends=flat.query_ends.ctypes.data, key_ends=flat.key_ends.ctypes.data,
                queries=flat.queries.ctypes.data, keys=flat.keys.ctypes.data, low=flat.low.ctypes.data,
                high=flat.high.ctypes.data, documents=None if documents is None else documents.data_ptr(),
                n_keys=k.shape[2],
            )  # fmt: skip


def _ready(*tensors: Tensor) -> list[Tensor]:
    """With a last stride of 1."""
    return [tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in tensors]


def _positions_first(shape: Sequence[int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, H, T, K] in memory as [B, T, H, K]: joining the heads afterwards is then a view."""
    B, H, T, K = shape
    return like.new_zeros((B, T, H, K), dtype=dtype).transpose(1, 2)


# ---- torch operators: seen by torch.compile as one step each -------------------------------------------------------


@torch.library.custom_op(
    "fewshot::native_attend",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, str pattern, int q_start, Tensor? documents) -> (Tensor, Tensor)",
)
def _attend(
    q: Tensor, k: Tensor, v: Tensor, pattern: str, q_start: int, documents: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The result in q's type, and the log-sum-exp of each query's scores, base 2."""
    code = library().code
    assert code is not None
    q, k, v = _ready(q, k, v)
    documents = None if documents is None else documents.to(torch.int64).contiguous()
    out = _positions_first(q.shape, q, torch.float32)
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    for work in _calls(q, k, pattern, q_start, documents):
        views = (_View.of(each) for each in (q, k, v, out))
        code.fewshot_attend(ctypes.byref(work), *views, ctypes.c_void_p(lse.data_ptr()), ctypes.c_int64(q.shape[2]))
    return out.to(q.dtype), lse


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, pattern: str, q_start: int, documents: Tensor | None) -> tuple[Tensor, Tensor]:
    return _positions_first(q.shape, q, q.dtype), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op(
    "fewshot::native_differentiate",
    mutates_args=(),
    schema="(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, str pattern, int q_start, "
    "Tensor? documents) -> (Tensor, Tensor, Tensor)",
)
def _differentiate(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, pattern: str, q_start: int,
    documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q, k and v."""
    code = library().code
    assert code is not None
    kind = q.dtype
    q, k, v, grad = _ready(q, k, v, grad.to(kind))
    documents = None if documents is None else documents.to(torch.int64).contiguous()
    delta = (grad.float() * out.float()).sum(dim=-1).contiguous()
    grads = [_positions_first(each.shape, q, torch.float32) for each in (q, k, v)]
    for work in _calls(q, k, pattern, q_start, documents):
        code.fewshot_differentiate(
            ctypes.byref(work), *(_View.of(each) for each in (q, k, v, grad)), ctypes.c_void_p(lse.data_ptr()),
            ctypes.c_void_p(delta.data_ptr()), *(_View.of(each) for each in grads), ctypes.c_int64(q.shape[2]),
        )  # fmt: skip
    grad_q, grad_k, grad_v = (each.to(kind) for each in grads)
    return grad_q, grad_k, grad_v


@_differentiate.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, pattern: str, q_start: int,
    documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    grad_q, grad_k, grad_v = (_positions_first(each.shape, q, q.dtype) for each in (q, k, v))
    return grad_q, grad_k, grad_v


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.pattern, ctx.q_start, documents = inputs
    ctx.save_for_backward(q, k, v, *output, documents)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, documents = ctx.saved_tensors
    return (*_differentiate(grad, q, k, v, out, lse, ctx.pattern, ctx.q_start, documents), None, None, None)


_attend.register_autograd(_backward, setup_context=_save)
