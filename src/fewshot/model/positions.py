"""Where a token stands, as one vector: the sum of a learned vector for each of its coordinates.

GPT has one coordinate, the position itself. The Sparse Transformer writes a position as row and column of a matrix that
is as wide as the stride of its attention, or as row, column and channel of an image. Source: Child et al. 2019,
section 5.3. In: position numbers. Out: vectors. Refuses to know what stands there.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot.model.coordinates import coordinates


class Positions(nn.Embedding):
    """The tables of all coordinates, one below the other in `weight`."""

    def __init__(self, sizes: tuple[int, ...], d_model: int) -> None:
        super().__init__(sum(sizes), d_model)
        self.sizes = sizes

    def forward(self, positions: Int[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
        """Return a vector for each position."""
        firsts = itertools.accumulate(self.sizes[:-1], initial=0)
        digits = coordinates(positions, self.sizes)
        rows = [first + digit for first, digit in zip(firsts, digits, strict=True)]
        return F.embedding(torch.stack(rows), self.weight).sum(0)
