"""Processes under torchrun: this one's number, how many there are, values of all of them. Costs nothing with one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from fewshot.base.errors import FewshotError

T = TypeVar("T")


class Gather(Protocol):
    """A function that returns the values of all processes, by rank; every process must call it."""

    def __call__(self, value: T, /) -> list[T]:
        """Return this value and those of all other processes."""


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def n_ranks() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def gather(value: T, /) -> list[T]:
    """Return the values of all processes, by rank; every process must call it."""
    return _gather(value, None)


def own_gather() -> Gather:
    """Return a `gather` on a channel of its own, so that a thread may use it beside what training exchanges.

    Every process must call this, and then the returned function equally often.
    """
    if n_ranks() == 1:
        return gather
    import torch.distributed

    _join()
    group = torch.distributed.new_group(backend="gloo")
    return lambda value: _gather(value, group)


def together(action: Callable[[], T], gather: Gather) -> list[T]:
    """Return what `action` gave on each process, by rank; what it raised on any of them is raised on all.

    So all processes take the same way, and none waits for another that has failed. That holds for `OSError`,
    `MemoryError` and this program's own errors; of several, the lowest rank's is raised. Every process must call it.
    """
    outcome: tuple[T | None, Exception | None]
    try:
        outcome = action(), None
    except (OSError, MemoryError, FewshotError) as error:
        outcome = None, error
    outcomes = gather(outcome)
    for _, failure in outcomes:
        if failure is not None:
            raise failure
    return [value for value, _ in outcomes]  # type: ignore[misc]  # no action failed


def finish() -> None:
    """Leave the process group, if one was formed."""
    if n_ranks() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _join() -> None:
    import torch.distributed

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def _gather(value: T, group: Any) -> list[T]:
    if n_ranks() == 1:
        return [value]
    import torch.distributed

    _join()
    values: list[T | None] = [None] * n_ranks()
    torch.distributed.all_gather_object(values, value, group=group)
    return values  # type: ignore[return-value]  # all are filled
