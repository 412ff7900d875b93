"""The coordinates of a position: what `positions` in a model's shape spells. In: a text, numbers. Out: numbers.

Knows no tensors, so that shapes are read without torch.
"""

from __future__ import annotations

import math
import re
from typing import Any

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
