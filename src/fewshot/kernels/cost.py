"""What each kernel takes for a need on this machine, measured once and kept in the user's cache."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fewshot.base.errors import BadFile
from fewshot.base.files import read_json, write_json
from fewshot.base.machine import cache_folder, processor_name
from fewshot.kernels.interface import Attend, Requirements

LONGEST = 2048  # positions that are measured: on longer texts a sparse kernel gains only more
LONGEST_SLOW = 256  # of a pattern with a part for each distance between positions, where 2048 would take minutes
N_HEADS, WIDTH = 4, 64
ROUNDS = 3


def measured(
    need: Requirements, kernels: Mapping[str, Attend], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return milliseconds of each kernel for this need, at `LONGEST` positions at most: the fastest of some rounds.

    The outcome stays the same on this machine, so that a run that goes on computes as it did before.
    """
    path = cache_folder() / "kernels" / f"{_key(need, kernels)}.json"
    stored = _kept(path)
    if stored.keys() == kernels.keys():
        return stored
    found = _measure(need, kernels, clock)
    _keep(path, found)
    return found


def _key(need: Requirements, kernels: Mapping[str, Attend]) -> str:
    gpu = torch.cuda.get_device_name() if need.device == "cuda" else ""
    where = (processor_name(), gpu, torch.get_num_threads(), torch.__version__)
    what = [getattr(need, field.name) for field in dataclasses.fields(need)]
    return hashlib.sha256(repr([where, *map(str, what), *kernels]).encode()).hexdigest()[:16]


def _kept(path: Path) -> dict[str, float]:
    """Return what was measured before; nothing where it cannot be read or is no measurement."""
    try:
        stored = read_json(path)
    except (BadFile, OSError):
        return {}
    return stored if isinstance(stored, dict) and all(map(_is_duration, stored.values())) else {}


def _is_duration(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def _keep(path: Path, found: dict[str, float]) -> None:
    try:
        write_json(path, found)
    except (BadFile, OSError):
        return  # no place to keep it: it is measured again next time


def _measure(need: Requirements, kernels: Mapping[str, Attend], clock: Callable[[], float]) -> dict[str, float]:
    """Return interleaved, so that a noisy machine disturbs all alike."""
    n_keys = min(need.n_keys, LONGEST if need.pattern.is_simple else LONGEST_SLOW)
    n_queries = min(need.n_queries, n_keys)
    n_heads = max(N_HEADS, len(need.pattern.by_head))
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (
        torch.randn(1, n_heads, n, WIDTH, generator=generator).to(need.device, need.dtype)
        for n in (n_queries, n_keys, n_keys, n_queries)
    )
    documents = torch.zeros(1, n_keys, dtype=torch.long, device=need.device) if need.documents else None
    place: dict[str, Any] = {"q_start": n_keys - n_queries, "documents": documents, "dropout": need.dropout}

    def milliseconds(attend: Attend) -> float:
        began = clock()
        with torch.set_grad_enabled(need.training):
            inputs = q_in, k_in, v_in = tuple(each.detach().requires_grad_(need.training) for each in (q, k, v))
            out = attend(q_in, k_in, v_in, need.pattern, **place)
            if need.training:
                torch.autograd.grad(out, inputs, grad)
        if need.device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (clock() - began)

    for attend in kernels.values():
        milliseconds(attend)  # a first call may compile: it does not count
    best = {name: milliseconds(attend) for name, attend in kernels.items()}
    for _ in range(ROUNDS - 1):
        for name, attend in kernels.items():
            if best[name] < 10 * min(best.values()):  # the others have lost
                best[name] = min(best[name], milliseconds(attend))
    return best
