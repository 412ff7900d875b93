"""Whole matrices for optimizers that need them: each is put together at one process, its owner, and shared out again.

What is computed of a whole matrix so does not depend on how it is cut. Two exchanges a step, of one number a weight
each. Owners take turns over the processes that hold the same blocks; with copies (dp) the owner's own copy of the
shares is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fewshot.checkpoint.pieces import Ranges
from fewshot.model.config import GPTConfig
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.parts import Part, ranges_at


class Owners:
    """Who owns which of some matrices; `parts` are this process's parts of them, in the same order everywhere."""

    def __init__(self, parts: Sequence[Part], config: GPTConfig, layout: Layout) -> None:
        self._parts, self._layout = list(parts), layout
        per_stage = layout.n_processes // layout.pp
        first = layout.rank // per_stage * per_stage
        self._ranks = range(first, first + per_stage)
        self._held: list[list[tuple[Ranges, ...]]] = [  # by process, by matrix
            [ranges_at(part.name, part.shape, config, layout, rank) for part in parts] for rank in self._ranks
        ]
        self._me = layout.rank - first

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of the whole matrix with this number."""
        return self._parts[number].shape

    def owner(self, number: int) -> int:
        """Return which process of the stage owns the matrix with this number."""
        return number % len(self._ranks)

    def is_mine(self, number: int) -> bool:
        """Return whether this process owns the matrix with this number."""
        return self.owner(number) == self._me

    def gather(self, values: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return the whole of each matrix that this process owns; `values` are its parts of all of them."""
        if len(self._ranks) == 1:
            return dict(enumerate(values))
        sent = [
            [v.flatten() for i, v in enumerate(values) if self.owner(i) == other and self._asks(other, self._me)]
            for other in range(len(self._ranks))
        ]
        mine = [i for i in range(len(values)) if self.is_mine(i)]
        sizes = [
            sum(self._size(other, i) for i in mine) if self._asks(self._me, other) else 0
            for other in range(len(self._ranks))
        ]
        received = self._exchange(sent, sizes, values[0])
        wholes = {i: values[0].new_empty(self._parts[i].shape) for i in mine}
        for other, flat in enumerate(received):
            for i in mine if len(flat) else []:
                flat = _paste(wholes[i], self._held[other][i], flat)
        return wholes

    def scatter(self, wholes: Mapping[int, Tensor], like: Sequence[Tensor]) -> list[Tensor]:
        """Return this process's part of every matrix, `like` the given ones, from its owner's whole of it."""
        if len(self._ranks) == 1:
            return [wholes[i] for i in range(len(like))]
        sent = [
            [whole[_slices(ranges)].flatten() for i, whole in sorted(wholes.items()) for ranges in self._held[other][i]]
            for other in range(len(self._ranks))
        ]
        sizes = [
            sum(value.numel() for i, value in enumerate(like) if self.owner(i) == other)
            for other in range(len(self._ranks))
        ]
        received = self._exchange(sent, sizes, like[0])
        parts = [torch.empty_like(value) for value in like]
        for other, flat in enumerate(received):
            for i, part in enumerate(parts):
                if self.owner(i) == other:
                    part.copy_(flat[: part.numel()].view(part.shape))
                    flat = flat[part.numel() :]
        return parts

    def _asks(self, owner: int, holder: int) -> bool:
        """Return whether an owner takes a matrix from this process, rather than from a copy of it."""
        if self._layout.exact:
            return True
        places = [self._layout.place(self._ranks[0] + process) for process in (owner, holder)]
        return all(places[0][name] == places[1][name] for name in ("dp", "cp"))

    def _size(self, process: int, number: int) -> int:
        return sum(torch.Size(high - low for low, high in ranges).numel() for ranges in self._held[process][number])

    def _exchange(self, sent: Sequence[Sequence[Tensor]], sizes: Sequence[int], like: Tensor) -> list[Tensor]:
        """Send a list of flat tensors to each process of the stage; return what came from each, flat."""
        outgoing = torch.cat([like.new_empty(0), *[tensor for tensors in sent for tensor in tensors]])
        incoming = like.new_empty(sum(sizes))
        lengths = [sum(tensor.numel() for tensor in tensors) for tensors in sent]
        dist.all_to_all_single(incoming, outgoing, list(sizes), lengths, group=self._layout.stage_group)
        return list(incoming.split(list(sizes)))


def _paste(whole: Tensor, held: Sequence[Ranges], flat: Tensor) -> Tensor:
    """Copy a process's rectangles, which stand flat behind each other, into the whole; return the rest of `flat`."""
    for ranges in held:
        target = whole[_slices(ranges)]
        target.copy_(flat[: target.numel()].view(target.shape))
        flat = flat[target.numel() :]
    return flat


def _slices(ranges: Ranges) -> tuple[slice, ...]:
    return tuple(slice(*ends) for ends in ranges)
