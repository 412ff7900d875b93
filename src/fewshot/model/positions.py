"""Where a token stands, as one vector: the sum of a learned vector for each of its coordinates.

GPT has one coordinate, the position itself. The Sparse Transformer writes a position as row and column of a matrix that
is as wide as the stride of its attention, or as row, column and channel of an image. Source: Child et al. 2019,
section 5.3. In: position numbers. Out: vectors. Refuses to know what stands there.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot.base.errors import BadValue, check

_SPELLED = re.compile(r"(rows|image)\s*\(\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*\)", re.ASCII)


def table_sizes(text: str, *, n_ctx: int) -> tuple[int, ...]:
    """Return the sizes of the coordinates that `text` names for n_ctx positions, the slowest first.

    "learned" has one; "rows(l)" the row and the column of a matrix of width l; "image(h, w, c)" row, column, channel.
    Raises BadValue for another text, and where the sizes do not fit n_ctx.
    """
    if text == "learned":
        return (n_ctx,)
    spelled = _SPELLED.fullmatch(text.strip())
    kind, numbers = (spelled[1], [int(number) for number in spelled[2].split(",")]) if spelled else ("", [])
    match kind, numbers:
        case "rows", [width]:
            check(1 <= width <= n_ctx, f"positions is {text!r}: the width must be from 1 to n_ctx, {n_ctx}")
            return math.ceil(n_ctx / width), width
        case "image", [_, _, _]:
            n = math.prod(numbers)
            check(n == n_ctx, f"positions is {text!r}, which has {n:,} positions, but n_ctx is {n_ctx}")
            return tuple(numbers)
    raise BadValue(f"positions is {text!r}, allowed: learned, rows(WIDTH), image(HEIGHT, WIDTH, CHANNELS)")


def coordinates(positions: Any, sizes: tuple[int, ...]) -> list[Any]:
    """Return the coordinates of a position, or elementwise of many: its digits where `sizes` are the bases."""
    digits = []
    for size in reversed(sizes[1:]):
        digits.append(positions % size)
        positions = positions // size
    return [positions, *reversed(digits)]


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
