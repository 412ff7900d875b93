"""Which part of every parameter each process holds, by arithmetic alone: any process can tell it of any other.

A parameter is cut at most twice. Tensor parallel gives a process whole heads, or as many feed-forward units: ranges of
rows, or a range of columns. FSDP then gives it one consecutive share of the rows of that, as torch's `chunk` cuts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fewshot.checkpoint.pieces import Piece, Ranges
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.parallel.mesh import Layout

Range = tuple[int, int]
BY_ROWS = ("attn.c_attn.weight", "attn.c_attn.bias", "mlp.c_fc.weight", "mlp.c_fc.bias")
BY_COLUMNS = ("attn.c_proj.weight", "mlp.c_proj.weight")


@dataclass(frozen=True, eq=False)
class Part:
    """What one process holds of one parameter."""

    name: str
    shape: tuple[int, ...]  # of the whole parameter
    parameter: nn.Parameter  # as the model has it: it receives the gradient
    local: nn.Parameter  # the values that this process holds; shares their memory
    ranges: tuple[Ranges, ...]  # the rectangles of the whole that `local` consists of, one below the other
    owned: bool  # whether this process counts and stores it: exactly one process does for each value

    @property
    def gradient(self) -> Tensor | None:
        """The part's gradient; None if it has none."""
        gradient = self.parameter.grad
        return gradient.to_local() if isinstance(gradient, DTensor) else gradient

    def pieces(self, values: Tensor, name: str) -> Iterator[Piece]:
        """Yield values that are laid out as `local`, such as its moments, as pieces of the whole tensor `name`."""
        first = 0
        for ranges in self.ranges:
            end = first + ranges[0][1] - ranges[0][0]
            yield Piece(name, self.shape, ranges, values[first:end])
            first = end


def tensor_parallel_ranges(
    name: str, shape: tuple[int, ...], config: GPTConfig, *, rank: int, size: int
) -> list[Ranges]:
    """Return the rectangles of a parameter that number `rank` of `size` tensor-parallel processes holds."""
    whole = [(0, n) for n in shape]
    if size == 1 or not name.endswith(BY_ROWS + BY_COLUMNS):
        return [tuple(whole)]
    if name.endswith(BY_COLUMNS):
        step = shape[1] // size
        return [(whole[0], (rank * step, (rank + 1) * step))]
    widths = [config.n_heads * width for width in (config.qk_width, config.qk_width, config.head_width)]
    ranges, first = [], 0
    for n in widths if "c_attn" in name else [shape[0]]:
        step = n // size
        ranges.append(((first + rank * step, first + (rank + 1) * step), *whole[1:]))
        first += n
    return ranges


def share_of_rows(ranges: list[Ranges], *, rank: int, size: int) -> list[Ranges]:
    """Return the share of stacked rectangles' rows that number `rank` of `size` FSDP processes holds."""
    n_rows = sum(rows[1] - rows[0] for rows, *_ in ranges)
    step = -(-n_rows // size)
    start, end = min(rank * step, n_rows), min((rank + 1) * step, n_rows)
    share, first = [], 0
    for (low, high), *columns in ranges:
        a, b = max(start, first), min(end, first + high - low)
        if a < b:
            share.append(((low + a - first, low + b - first), *columns))
        first += high - low
    return share


def ranges_at(name: str, shape: tuple[int, ...], config: GPTConfig, layout: Layout, rank: int) -> tuple[Ranges, ...]:
    """Return the rectangles of a parameter that a process holds, if its stage has the parameter."""
    place = layout.place(rank)
    cut = tensor_parallel_ranges(name, shape, config, rank=place["tp"], size=layout.tp)
    if layout.exact:  # copies would be added in an order of their own
        return tuple(share_of_rows(cut, rank=layout.data_rank_of(rank), size=layout.n_data))
    return tuple(share_of_rows(cut, rank=place["fsdp"], size=layout.fsdp))


def whole_shapes(model: GPT, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters of the model as it is on one process."""
    if layout.n_processes > 1:
        with torch.device("meta"):
            model = GPT(model.config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def parts_of(model: GPT, layout: Layout) -> list[Part]:
    """Return this process's part of every parameter that its stage holds."""
    parts, place, config = [], layout.place(), model.config
    shapes = whole_shapes(model, layout)
    for name, parameter in model.named_parameters():
        shape = shapes[name]
        local = parameter
        if isinstance(parameter, DTensor):
            local = nn.Parameter(parameter.to_local().detach())
        first_copy = place["tp"] == 0 or name.endswith(BY_ROWS + BY_COLUMNS)
        tied_copy = config.tied and name == "wte.weight" and place["pp"] > 0
        owned = (place["dp"] == place["cp"] == 0 or layout.exact) and first_copy and not tied_copy
        ranges = ranges_at(name, shape, config, layout, layout.rank)
        assert sum(rows[1] - rows[0] for rows, *_ in ranges) == len(local), f"{name}: {ranges}, {tuple(local.shape)}"
        parts.append(Part(name, shape, parameter, local, ranges, owned))
    return parts
