"""Distributions over tasks. In: a generator of random numbers. Out: support and query sets of many tasks at once.

Knows no learner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Episodes:
    """N tasks: K examples to learn from and Q others to be judged on."""

    support_x: Float[Tensor, "N K X"]
    support_y: Float[Tensor, "N K Y"]
    query_x: Float[Tensor, "N Q X"]
    query_y: Float[Tensor, "N Q Y"]


class Tasks(Protocol):
    """A distribution over tasks."""

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Fresh tasks; the same generator state gives the same ones."""
        ...


@dataclass(frozen=True)
class Sinusoids:
    """y = A sin(x - phase), A uniform in [0.1, 5], phase in [0, pi], x in [-5, 5].

    Predicting 0 has a mean squared error of 4.25. Source: Finn et al. 2017, section 5.1.
    """

    amplitudes: tuple[float, float] = (0.1, 5.0)
    phases: tuple[float, float] = (0.0, math.pi)
    inputs: tuple[float, float] = (-5.0, 5.0)

    def draw(self, n_tasks: int, n_support: int, n_query: int, generator: torch.Generator) -> Episodes:
        """Fresh waves with points on them."""

        def uniform(bounds: tuple[float, float], n: int) -> Tensor:
            low, high = bounds
            return low + (high - low) * torch.rand(n_tasks, n, 1, generator=generator)

        amplitude, phase = uniform(self.amplitudes, 1), uniform(self.phases, 1)
        x = uniform(self.inputs, n_support + n_query)
        y = amplitude * torch.sin(x - phase)
        return Episodes(x[:, :n_support], y[:, :n_support], x[:, n_support:], y[:, n_support:])
