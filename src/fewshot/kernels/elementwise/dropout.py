"""Dropout whose zeros are a function of a row's key, so that they depend on no neighbour, process or order of calls.

In: a key for each row of a batch. Out: the batch with values dropped. The bits come from SplitMix64's finaliser (Steele
et al. 2014) over the numbers of a row's values, on any device and under a compiler the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64  # as signed numbers, which torch has
_SHARES = 2**24  # probabilities are rounded to multiples of one in so many


@dataclass(frozen=True, eq=False)
class Dropout:
    """What is dropped of each row: `probability` of its values, chosen by the row's key.

    `first_head` is the number of the first head in a process that holds only some of them.
    """

    probability: float  # above 0, below 1
    keys: Int[Tensor, " B"]
    first_head: int = 0

    def at(self, place: int) -> Dropout:
        """Return the dropout of one place in the model, such as a layer: other zeros than those of other places."""
        return replace(self, keys=_mixed(self.keys + ((place + 1) * _GOLDEN + 2**63) % 2**64 - 2**63))

    def __call__(self, x: Float[Tensor, B * N], *, first: int = 0) -> Float[Tensor, B * N]:
        """Return `x` with values dropped and the others scaled up; `first` is the number of a row's first value."""
        numbers = torch.arange(first, first + x[0].numel(), device=x.device)
        bits = _mixed(self.keys[:, None] + numbers)
        kept = ((bits >> 40) & (_SHARES - 1)) >= round(self.probability * _SHARES)
        return x * (kept.view(x.shape).to(x.dtype) / (1 - self.probability))

    def of_weights(self, weights: Float[Tensor, "B H T S"]) -> Float[Tensor, "B H T S"]:
        """Return attention weights with some dropped; by the numbers of the heads in the whole model."""
        return self(weights, first=self.first_head * weights[0, 0].numel())


def _mixed(x: Tensor) -> Tensor:
    """Return a hash of each 64-bit number."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _FIRST
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _SECOND
    return x ^ ((x >> 31) & (2**33 - 1))
