"""Attention over a KV cache in pages, where a query's result is the same to the bit whatever queries stand beside it.

A cache is a tensor [pages, units, 2, 16, K rounded up to 16]; a unit is one head of one layer. The first half of a page
holds the keys of 16 positions turned ([K, 16]), the second the values ([16, K]). A query's sums run over its keys in
the order of their positions: by C++ on a CPU that has a compiler, else by torch, query by query. (On a GPU
in batches, whose results are only close.)
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt16
from torch import Tensor

from fewshot.kernels.library import library
from fewshot.patterns.pages import PAGE

GROUP = 4  # queries of one text that C++ works on together
GATHERED = 1 << 26  # numbers that torch gathers at once on a GPU


@dataclass(frozen=True)
class PageBatch:
    """What some queries read, in groups of neighbours that belong to one text."""

    group_ends: Int[np.ndarray, " G"]  # in the queries
    page_ends: Int[np.ndarray, " G"]  # of each group, in `pages`
    pages: Int[np.ndarray, " P"]
    masks: UInt16[np.ndarray, "P 4"]  # which of a page's positions each query of the group reads

    @cached_property
    def by_query(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The pages that each query reads, and its masks of them."""
        lists, first_query, first_page = [], 0, 0
        for last_query, last_page in zip(self.group_ends.tolist(), self.page_ends.tolist(), strict=True):
            pages, masks = self.pages[first_page:last_page], self.masks[first_page:last_page]
            for i in range(last_query - first_query):
                read = np.flatnonzero(masks[:, i])
                lists.append((pages[read], masks[read, i]))
            first_query, first_page = last_query, last_page
        return lists

    def padded(self, first: int, last: int) -> tuple[Int[Tensor, "N P"], Bool[Tensor, "N S"]]:
        """Return the pages of some queries, and which of their positions each reads."""
        lists = self.by_query[first:last]
        pages = np.zeros((len(lists), max(len(own) for own, _ in lists)), dtype=np.int64)
        masks = np.zeros(pages.shape, dtype=np.uint16)
        for i, (own, mask) in enumerate(lists):
            pages[i, : len(own)], masks[i, : len(own)] = own, mask
        bits = (masks[..., None] >> np.arange(PAGE)) & 1
        return torch.from_numpy(pages), torch.from_numpy(bits.astype(bool)).flatten(1)


@dataclass(frozen=True)
class Units:
    """Heads of one layer in a cache."""

    heads: slice
    first: int  # unit of the first of them


class Pages(ctypes.Structure):
    """What C++ is told of a cache, of the heads that are meant, and of what queries read; see cpp/pages.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("n_heads", "width", "padded", "head_first", "head_step", "n_units")),
        *((name, ctypes.c_int64) for name in ("first_unit", "is_bf16", "n_groups", "n_threads")),
        *((name, ctypes.c_void_p) for name in ("group_ends", "page_ends", "pages", "masks")),
    )


def new_pages(n_pages: int, n_units: int, width: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return an empty cache. On a CPU its memory is taken from the system page by page, when it is written."""
    shape = (n_pages, n_units, 2, PAGE, -(-width // PAGE) * PAGE)
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def write_pages(
    cache: Float[Tensor, "P U 2 16 C"],
    units: Units,
    k: Float[Tensor, "N H K"],
    v: Float[Tensor, "N H K"],
    slots: Int[Tensor, " N"],
) -> None:
    """Put keys and values into their slots: 16 times the page, plus the place in it."""
    n, n_heads, width = k.shape
    code = _native(cache)
    if code is not None and _same_rows(k, v):
        work = pages_of(cache, units, n_heads, width)
        code.fewshot_write_pages(
            ctypes.byref(work), ctypes.c_void_p(k.data_ptr()), ctypes.c_void_p(v.data_ptr()),
            ctypes.c_int64(k.stride(0)), ctypes.c_void_p(cache.data_ptr()), ctypes.c_void_p(slots.data_ptr()),
            ctypes.c_int64(n),
        )  # fmt: skip
        return
    page, lane = slots[:, None] // PAGE, slots[:, None] % PAGE
    unit = (units.first + torch.arange(len(range(n_heads)[units.heads]), device=slots.device))[None]
    keys, values = _halves(cache)
    keys[page, unit, :width, lane] = k[:, units.heads].to(cache.dtype)
    values[page, unit, lane, :width] = v[:, units.heads].to(cache.dtype)


def attend_pages(
    q: Float[Tensor, "N H K"],
    cache: Float[Tensor, "P U 2 16 C"],
    units: Units,
    batch: PageBatch,
    out: Float[Tensor, "N H K"],
) -> None:
    """Write the attention of these heads to `out`; scores are scaled by 1/sqrt(K)."""
    n, n_heads, width = q.shape
    code = _native(cache)
    if code is not None and _same_rows(q, q):
        work = pages_of(cache, units, n_heads, width, batch)
        code.fewshot_attend_pages(
            ctypes.byref(work), ctypes.c_void_p(q.data_ptr()), ctypes.c_int64(q.stride(0)),
            ctypes.c_void_p(cache.data_ptr()), ctypes.c_void_p(out.data_ptr()),
        )  # fmt: skip
        return
    mine = slice(units.first, units.first + len(range(n_heads)[units.heads]))
    width_read = max(len(pages) for pages, _ in batch.by_query)
    # On a CPU one by one: so the sums of a query have the same length whatever stands beside it.
    at_once = 1 if q.device.type == "cpu" else max(1, GATHERED // (width_read * PAGE * cache.shape[4] * n_heads))
    for first in range(0, n, at_once):
        pages, bits = batch.padded(first, min(first + at_once, n))
        keys, values = _halves(cache[pages.to(q.device), mine].flatten(0, 1))
        keys, values = (
            half[..., :width].unflatten(0, pages.shape).transpose(1, 2).flatten(2, 3).float()
            for half in (keys.transpose(2, 3), values)
        )
        queries, bits = q[first : first + at_once, units.heads, None].float(), bits.to(q.device)[:, None, :, None]
        keys, values = keys.masked_fill(~bits, 0), values.masked_fill(~bits, 0)  # they may be no numbers
        mixed = F.scaled_dot_product_attention(queries, keys, values, bits.transpose(2, 3))
        out[first : first + at_once, units.heads] = mixed[:, :, 0]


def _native(cache: Tensor) -> ctypes.CDLL | None:
    return library().code if cache.device.type == "cpu" else None


def _same_rows(a: Tensor, b: Tensor) -> bool:
    """Return whether C++ can read both: floats, heads side by side, rows equally far apart."""
    return all(x.dtype == torch.float32 and x.stride()[1:] == (x.shape[2], 1) for x in (a, b)) and (
        a.stride(0) == b.stride(0)
    )


def _halves(cache: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of the keys [P, U, C, 16] and the values [P, U, 16, C]."""
    return cache[:, :, 0].flatten(2).unflatten(2, (-1, PAGE)), cache[:, :, 1]


def pages_of(cache: Tensor, units: Units, n_heads: int, width: int, batch: PageBatch | None = None) -> Pages:
    """Return what C++ is told; without `batch` nothing is read. The batch and the cache must outlive it."""
    work = Pages(
        n_heads=n_heads, width=width, padded=cache.shape[4], head_first=units.heads.start,
        head_step=units.heads.step or 1, n_units=cache.shape[1], first_unit=units.first,
        is_bf16=cache.dtype == torch.bfloat16, n_threads=torch.get_num_threads(),
    )  # fmt: skip
    if batch is not None:
        work.n_groups = len(batch.group_ends)
        work.group_ends, work.page_ends = batch.group_ends.ctypes.data, batch.page_ends.ctypes.data
        work.pages, work.masks = batch.pages.ctypes.data, batch.masks.ctypes.data
    return work
