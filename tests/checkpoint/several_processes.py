"""Several processes in one: threads that exchange values as processes do, each with its own rank."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from fewshot.base.dist import Processes
from fewshot.checkpoint.pieces import Piece, Ranges

T = TypeVar("T")


def in_processes(n_ranks: int, action: Callable[[Processes], T]) -> list[T | Exception]:
    """Run `action` in so many threads; return what each gave or raised, by rank.

    A thread that ends while others wait for it breaks their exchange after a while, as a process that dies would.
    """
    barrier, values = threading.Barrier(n_ranks, timeout=20), [b""] * n_ranks

    def of_rank(rank: int) -> T | Exception:
        def exchange(value: Any) -> list[Any]:
            values[rank] = pickle.dumps(value)  # as it would go to another process
            barrier.wait()
            gathered = [pickle.loads(other) for other in values]
            barrier.wait()
            return gathered

        try:
            return action(Processes(rank, n_ranks, exchange))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            return error

    with ThreadPoolExecutor(n_ranks) as pool:
        return list(pool.map(of_rank, range(n_ranks)))


def cut(name: str, tensor: torch.Tensor, ranges: Ranges) -> Piece:
    """The rectangle `ranges` of a whole tensor, as a view."""
    return Piece(name, tuple(tensor.shape), ranges, tensor[tuple(slice(*bounds) for bounds in ranges)])


def cut_along(name: str, tensor: torch.Tensor, dimension: int, n_parts: int) -> list[Piece]:
    """Parts of a whole tensor along a dimension, the last ones smaller or empty if it does not divide."""
    size, whole = tensor.shape[dimension], [(0, length) for length in tensor.shape]
    width = -(-size // n_parts)
    bounds = [(min(size, part * width), min(size, (part + 1) * width)) for part in range(n_parts)]
    return [cut(name, tensor, (*whole[:dimension], bound, *whole[dimension + 1 :])) for bound in bounds]
