"""Pieces: rectangles of named tensors, of which each process holds some. The contract between layout and checkpoint.

A stored piece is known by its key: the tensor's name if the piece is the whole tensor, else the name, an @ and the
range of every dimension as start:end, so `wte.weight@0:96,0:32` is the first 96 rows and 32 columns. Knows no file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Ranges = tuple[tuple[int, int], ...]  # (start, end) in each dimension
IN_PART = re.compile(r"(?P<name>.+)@(?P<ranges>\d+:\d+(,\d+:\d+)*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, eq=False)
class Piece:
    """The rectangle `ranges` of the tensor `name`, which as a whole has `shape`.

    `tensor` has the rectangle's shape and is a view of what training uses: filling it fills the parameter. A process
    may hold an empty rectangle; it is neither written nor read.
    """

    name: str
    shape: tuple[int, ...]
    ranges: Ranges
    tensor: Tensor

    def __post_init__(self) -> None:
        is_inside = all(0 <= start <= end <= size for (start, end), size in zip(self.ranges, self.shape, strict=True))
        assert is_inside, f"{self.name}: {self.ranges} is no part of {self.shape}"
        assert tuple(self.tensor.shape) == sizes(self.ranges), f"{self.name}: {self.tensor.shape} is not {self.ranges}"

    @property
    def key(self) -> str:
        """The name under which the piece is stored."""
        return key_of(self.name, self.shape, self.ranges)


def whole(name: str, tensor: Tensor) -> Piece:
    """Return a tensor as the piece that is all of it."""
    shape = tuple(tensor.shape)
    return Piece(name, shape, tuple((0, size) for size in shape), tensor)


def whole_pieces(tensors: Mapping[str, Tensor]) -> list[Piece]:
    """Return tensors by name as whole pieces: what a single process holds."""
    return [whole(name, tensor) for name, tensor in tensors.items()]


def key_of(name: str, shape: Sequence[int], ranges: Ranges) -> str:
    """Return the key of a piece, by the spelling in the module's docstring."""
    if all((start, end) == (0, size) for (start, end), size in zip(ranges, shape, strict=True)):
        return name
    return f"{name}@{','.join(f'{start}:{end}' for start, end in ranges)}"


def parse_key(key: str, shape: Sequence[int]) -> tuple[str, Ranges]:
    """Return name and rectangle of a stored tensor of this shape; a key of another shape raises `ValueError`."""
    match = IN_PART.fullmatch(key)
    if match is None:
        return key, tuple((0, size) for size in shape)
    bounds = [bound.split(":") for bound in match["ranges"].split(",")]
    ranges = tuple((int(start), int(end)) for start, end in bounds)
    if sizes(ranges) != tuple(shape):
        raise ValueError(f"{key} has the shape {tuple(shape)}")
    return match["name"], ranges


def sizes(ranges: Ranges) -> tuple[int, ...]:
    """Return the shape of a rectangle."""
    return tuple(end - start for start, end in ranges)


def n_elements(ranges: Ranges) -> int:
    """Return how many elements a rectangle has; that of a scalar has one."""
    return math.prod(sizes(ranges))


def overlap(first: Ranges, second: Ranges) -> Ranges | None:
    """Return the rectangle that two rectangles of one tensor share, or None."""
    shared = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(first, second, strict=True))
    return shared if all(start < end for start, end in shared) else None


def within(inner: Ranges, outer: Ranges) -> tuple[slice, ...]:
    """Return where the rectangle `inner` lies in the tensor of the rectangle `outer`."""
    return tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(inner, outer, strict=True))
