"""How long each kernel takes on this machine: timed once, and stored in the user's cache."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fewshot.base.machine import processor_name
from fewshot.base.timings import stored_times
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Attend, Requirements

LONGEST = 2048  # positions that are timed: on longer texts a sparse kernel only gains more
LONGEST_SLOW = 256  # of a pattern with a part for each distance between positions, where 2048 would take minutes
N_HEADS, WIDTH = 4, 64
ROUNDS = 3


def time_kernels(
    requirements: Requirements, kernels: Mapping[str, Attend], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the milliseconds that each kernel takes, at `LONGEST` positions at most: the fastest of `ROUNDS` runs.

    Times are stored, so that a resumed run takes the same kernels and computes as it did before.
    """
    gpu = torch.cuda.get_device_name() if requirements.device == "cuda" else ""
    where = (processor_name(), gpu, torch.get_num_threads(), torch.__version__)
    what = [str(getattr(requirements, field.name)) for field in dataclasses.fields(requirements)]
    return stored_times("kernels", [where, *what], kernels.keys(), lambda: _time(requirements, kernels, clock))


def _time(requirements: Requirements, kernels: Mapping[str, Attend], clock: Callable[[], float]) -> dict[str, float]:
    """Run all kernels in turns, so that a noisy machine disturbs all alike; return the milliseconds of each."""
    n_keys = min(requirements.n_keys, LONGEST if requirements.pattern.is_simple else LONGEST_SLOW)
    n_queries = min(requirements.n_queries, n_keys)
    n_heads = max(N_HEADS, len(requirements.pattern.by_head))
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (
        torch.randn(1, n_heads, n, WIDTH, generator=generator).to(requirements.device, requirements.dtype)
        for n in (n_queries, n_keys, n_keys, n_queries)
    )
    documents = torch.zeros(1, n_keys, dtype=torch.long, device=requirements.device) if requirements.documents else None
    keys = torch.zeros(1, dtype=torch.long, device=requirements.device)
    dropout = Dropout(requirements.dropout, keys) if requirements.dropout else None
    place: dict[str, Any] = {"q_start": n_keys - n_queries, "documents": documents, "dropout": dropout}

    def milliseconds(attend: Attend) -> float:
        began = clock()
        with torch.set_grad_enabled(requirements.training):
            inputs = q_in, k_in, v_in = tuple(x.detach().requires_grad_(requirements.training) for x in (q, k, v))
            out = attend(q_in, k_in, v_in, requirements.pattern, **place)
            if requirements.training:
                torch.autograd.grad(out, inputs, grad)
        if requirements.device == "cuda":
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
