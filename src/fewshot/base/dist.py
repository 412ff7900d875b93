"""Processes under torchrun: this one's number, how many there are, values of all of them. Costs nothing with one."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


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

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    values: list[T | None] = [None] * n_ranks()
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # all are filled


def finish() -> None:
    """Leave the process group, if one was formed."""
    if n_ranks() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
