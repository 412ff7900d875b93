"""Processes under torchrun: this one's number, how many there are, values of all of them. Costs nothing with one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from fewshot.base.errors import FewshotError

T = TypeVar("T")
WAIT = timedelta(minutes=10)
WRITING = timedelta(hours=1)  # a process may wait for another that writes to a slow disk


@dataclass(frozen=True)
class Processes:
    """Processes that work together: this one's number, how many they are, and a channel to exchange values on."""

    rank: int
    n_ranks: int
    exchange: Callable[[Any], list[Any]]  # the values of all, by rank; every process must call it

    def together(self, action: Callable[[], T]) -> list[T]:
        """Return what `action` gave on each process, by rank; what it raised on any of them is raised on all.

        So all take the same way, and none waits for another that has failed. That holds for `OSError`, `MemoryError`
        and this program's own errors; of several the lowest rank's is raised. Every process must call it.
        """
        outcome: tuple[T | None, Exception | None]
        try:
            outcome = action(), None
        except (OSError, MemoryError, FewshotError) as error:
            outcome = None, error
        outcomes = self.exchange(outcome)
        for _, failure in outcomes:
            if failure is not None:
                raise failure
        return [value for value, _ in outcomes]


ALONE = Processes(0, 1, lambda value: [value])


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def n_ranks() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def n_local_ranks() -> int:
    """Return how many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def gather(value: T) -> list[T]:
    """Return the values of all processes, by rank; every process must call it."""
    if n_ranks() == 1:
        return [value]
    join()
    return _all_values(value, None)


def all_processes() -> Processes:
    """Return all processes, with the channel that `gather` uses."""
    return ALONE if n_ranks() == 1 else Processes(rank(), n_ranks(), gather)


def own_channel() -> Processes:
    """Return all processes, with a new channel: for a thread beside training. Every process must call it."""
    if n_ranks() == 1:
        return ALONE
    import torch.distributed

    join()
    group = torch.distributed.new_group(backend="gloo", timeout=WRITING)
    return Processes(rank(), n_ranks(), lambda value: _all_values(value, group))


def join(device: str = "cpu") -> None:
    """Form the group of all processes, if it is not there yet; on a GPU what lies there goes by NCCL.

    A process that waits for another longer than `WAIT` raises: that one is gone, or hangs.
    """
    import torch.distributed

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=WAIT)


def from_first(make: Callable[[], T]) -> T:
    """Return what `make` returns on the first process, on all of them; however long that takes.

    What it raises ends the first process, and with it the job.
    """
    if n_ranks() == 1:
        return make()
    import pickle

    import torch.distributed

    join()
    store: Any = torch.distributed.distributed_c10d._get_default_store()
    from_first.n_calls += 1  # type: ignore[attr-defined]
    key = f"fewshot/from_first/{from_first.n_calls}"  # type: ignore[attr-defined]
    if rank() == 0:
        value = make()
        store.set(key, pickle.dumps(value))
        return value
    while not store.check([key]):  # a collective would give up, and would not hear a signal
        time.sleep(0.05)
    return pickle.loads(store.get(key))


from_first.n_calls = 0  # type: ignore[attr-defined]


def finish() -> None:
    """Leave the process group, if one was formed."""
    if n_ranks() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _all_values(value: Any, group: Any) -> list[Any]:
    import torch.distributed

    values: list[Any] = [None] * n_ranks()
    torch.distributed.all_gather_object(values, value, group=group)
    return values
