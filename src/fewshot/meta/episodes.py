"""Distributions over tasks. In: a generator of random numbers. Out: support and query sets of many tasks at once.

Knows no learner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor

from fewshot.base.machine import check_fits
from fewshot.base.rng import seed_of

BYTES = 4  # of a float32


@dataclass(frozen=True)
class Episodes:
    """N tasks: K examples to learn from and Q others to be judged on."""

    support_x: Shaped[Tensor, "N K *X"]
    support_y: Shaped[Tensor, "N K *Y"]
    query_x: Shaped[Tensor, "N Q *X"]
    query_y: Shaped[Tensor, "N Q *Y"]

    def __getitem__(self, tasks: slice) -> Episodes:
        """Return a slice of the tasks."""
        return Episodes(*(part[tasks] for part in self.parts()))

    def __len__(self) -> int:
        return len(self.support_x)

    def split(self, n_tasks: int) -> Iterator[Episodes]:
        """Yield all tasks, `n_tasks` at once."""
        for first in range(0, len(self), n_tasks):
            yield self[first : first + n_tasks]

    def all_as_query(self) -> Episodes:
        """Return the same tasks with all examples as queries: what is learned from without an inner loop."""
        x, y = torch.cat([self.support_x, self.query_x], 1), torch.cat([self.support_y, self.query_y], 1)
        return Episodes(self.support_x, self.support_y, x, y)

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four tensors; `Episodes(*parts)` is the inverse."""
        return self.support_x, self.support_y, self.query_x, self.query_y

    def to(self, device: torch.device | str) -> Episodes:
        """Return the same tasks on a device."""
        return Episodes(*(part.to(device) for part in self.parts()))


@runtime_checkable
class Tasks(Protocol):
    """A distribution over tasks."""

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return fresh tasks; the same state of the generator gives the same tasks."""
        ...


def check_drawn(n_tasks: int, n_numbers: int, *names: str) -> None:
    """Raise BadValue if so many tasks do not fit into memory; `names` are the settings to lower."""
    check_fits(BYTES * n_tasks * n_numbers, f"{n_tasks:,} tasks at once", f"lower {' or '.join(names)}")


def unseen(*what: str, seed: int) -> torch.Generator:
    """Return the generator that a test's tasks are drawn by, those of each seed of an experiment by its own."""
    return torch.Generator().manual_seed(seed_of(*what, *([seed] if seed else [])))  # the first one is older than seeds


@dataclass(frozen=True)
class Sinusoids:
    """y = A sin(x - phase), A uniform in [0.1, 5], phase in [0, pi], x in [-5, 5].

    Predicting 0 has a mean squared error of 4.25. Source: Finn et al. 2017, section 5.1.
    """

    amplitudes: tuple[float, float] = (0.1, 5.0)
    phases: tuple[float, float] = (0.0, math.pi)
    inputs: tuple[float, float] = (-5.0, 5.0)

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Return fresh waves with points on each."""

        def uniform(bounds: tuple[float, float], n: int) -> Tensor:
            low, high = bounds
            return low + (high - low) * torch.rand(n_tasks, n, 1, generator=generator)

        amplitude, phase = uniform(self.amplitudes, 1), uniform(self.phases, 1)
        x = uniform(self.inputs, n_support + n_query)
        y = amplitude * torch.sin(x - phase)
        return Episodes(x[:, :n_support], y[:, :n_support], x[:, n_support:], y[:, n_support:])
