"""Reads rectangles of the tensors of a checkpoint, whatever rectangles its files hold.

In: a checkpoint whose files were verified. Out: filled pieces, or `DamagedCheckpoint`. Of a file only the header and
what a piece needs is read. Knows nothing of models and layouts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewshot.base.errors import DamagedCheckpoint
from fewshot.checkpoint.manifest import Checkpoint, parts_of
from fewshot.checkpoint.pieces import Piece, Ranges, n_elements, overlap, parse_key, sizes, whole, within


@dataclass(frozen=True)
class _Stored:
    """A rectangle in a file."""

    file: Path
    key: str
    ranges: Ranges
    is_old: bool  # other shape in the file


class PieceReader:
    """The tensors in all parts of one file of a checkpoint: WEIGHTS or TRAINING.

    `shapes` has the whole shape of every tensor, by name.
    """

    def __init__(self, checkpoint: Checkpoint, file: str) -> None:
        self.path = checkpoint.path
        self._opened: dict[Path, Any] = {}
        self._stored: dict[str, dict[Ranges, _Stored]] = {}
        for part in parts_of(file, checkpoint.files):
            self._read_header(checkpoint.path / part)
        self.shapes = {
            name: tuple(max(end for _, end in column) for column in zip(*rectangles, strict=True))
            for name, rectangles in self._stored.items()
        }

    def fill(self, pieces: Iterable[Piece]) -> None:
        """Copy into each piece's tensor what the files hold of it.

        A tensor of another name or shape, or an element that no file holds, raises `DamagedCheckpoint`.
        """
        for piece in pieces:
            if piece.name not in self._stored:
                raise DamagedCheckpoint(f"{self.path} holds no tensor {piece.name}")
            if piece.shape != self.shapes[piece.name]:
                shapes = f"has the shape {self.shapes[piece.name]}, not {piece.shape}"
                raise DamagedCheckpoint(f"{self.path}: {piece.name} {shapes}")
            if n_elements(piece.ranges):
                self._fill(piece)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors, whole."""
        return {name: self._whole(name) for name in self._stored}

    @torch.no_grad()
    def _fill(self, piece: Piece) -> None:
        is_filled = torch.zeros(sizes(piece.ranges), dtype=torch.bool)
        for stored in self._stored[piece.name].values():
            shared = overlap(stored.ranges, piece.ranges)
            if shared is None:
                continue
            place = within(shared, piece.ranges)
            piece.tensor[place].copy_(self._read(stored, shared))
            if shared == piece.ranges:
                return
            is_filled[place] = True
        if not is_filled.all():
            raise DamagedCheckpoint(f"{self.path}: no file holds all of {piece.name}")

    def _whole(self, name: str) -> Tensor:
        stored = next(iter(self._stored[name].values()))
        first = self._read(stored, stored.ranges)
        if tuple(first.shape) == self.shapes[name]:
            return first
        tensor = torch.empty(self.shapes[name], dtype=first.dtype)
        self.fill([whole(name, tensor)])
        return tensor

    def _read_header(self, file: Path) -> None:
        with _told_as_damage(file):
            opened = self._opened[file] = safe_open(file, "pt")
            for key in opened.keys():  # noqa: SIM118
                in_file = parse_key(key, opened.get_slice(key).get_shape())
                name, ranges = _as_today(*in_file)
                rectangles = self._stored.setdefault(name, {})
                if any(len(ranges) != len(other) for other in rectangles):
                    raise ValueError(f"{key} has {len(ranges)} dimensions, in another file it has not")
                rectangles[ranges] = _Stored(file, key, ranges, ranges != in_file[1])

    def _read(self, stored: _Stored, shared: Ranges) -> Tensor:
        opened = self._opened[stored.file]
        with _told_as_damage(stored.file):
            place = within(shared, stored.ranges)
            if shared == stored.ranges or stored.is_old:  # a scalar too, which cannot be cut
                tensor: Tensor = opened.get_tensor(stored.key)
                return tensor.view(sizes(stored.ranges))[place]
            return cast(Tensor, opened.get_slice(stored.key)[place])


def _as_today(name: str, ranges: Ranges) -> tuple[str, Ranges]:
    """Return what a rectangle is called today: NorMuon once kept its momentum in blocks of rows."""
    if name.endswith("/momentum") and len(ranges) == 3:
        blocks, rows, columns = ranges
        return f"{name}_buffer", ((0, blocks[1] * rows[1]), columns)
    return name, ranges


@contextlib.contextmanager
def _told_as_damage(file: Path) -> Iterator[None]:
    """Turn what the library says of a file that is no safetensors into `DamagedCheckpoint` with the file's name."""
    try:
        yield
    except (SafetensorError, ValueError) as error:  # of which UnicodeError is one
        name = os.fsencode(file).decode(errors="replace")
        raise DamagedCheckpoint(f"{name} cannot be read: {error}") from None
