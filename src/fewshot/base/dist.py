"""Processes under torchrun: this one's number, how many there are, values of all of them. Costs nothing with one."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")
WAIT = timedelta(minutes=10)


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def n_ranks() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def gather(value: T) -> list[T]:
    """Return the values of all processes, by rank; every process must call it."""
    if n_ranks() == 1:
        return [value]
    import torch.distributed

    join()
    values: list[T | None] = [None] * n_ranks()
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # all are filled


def join(device: str = "cpu") -> None:
    """Form the group of all processes, if it is not there yet; on a GPU what lies there goes by NCCL.

    A process that waits for another longer than `WAIT` raises: that one is gone, or hangs.
    """
    import torch.distributed

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=WAIT)


def finish() -> None:
    """Leave the process group, if one was formed."""
    if n_ranks() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
