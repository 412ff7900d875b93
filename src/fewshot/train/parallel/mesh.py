"""Where this process stands among those that train one model. In: the sizes of a layout. Out: coordinates, groups.

Processes are numbered along (pp, dp, cp, fsdp, tp), tp fastest, so that those that exchange most are neighbours. One
process has no mesh and pays for none. In the mesh cp is a part of dp: both have copies of the same weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from fewshot.base.dist import join, n_ranks, rank
from fewshot.base.errors import BadValue, check
from fewshot.model.footprint.layout import Layout as Sizes
from fewshot.train.config import ParallelConfig

DIMENSIONS = ("pp", "dp", "cp", "fsdp", "tp")  # the fastest last


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout(Sizes):
    """The sizes of the mesh and this process's place in it."""

    exact: bool = False  # sums in one order whatever the layout
    rank: int = 0
    mesh: DeviceMesh | None = None  # None: one process

    def place(self, rank: int | None = None) -> dict[str, int]:
        """Return the coordinate of a process in each dimension; of this one if none is named."""
        left, place = self.rank if rank is None else rank, {}
        for name in reversed(DIMENSIONS):
            left, place[name] = divmod(left, getattr(self, name))
        return place

    def data_rank_of(self, rank: int) -> int:
        """Return the number of a process among those over which the rows of a batch are spread."""
        place = self.place(rank)
        return place["dp"] * self.fsdp + place["fsdp"]

    @property
    def data_rank(self) -> int:
        """The number of this process among them."""
        return self.data_rank_of(self.rank)

    @property
    def counts_loss(self) -> bool:
        """Whether this process is the one of its tensor-parallel group that has the loss of its rows."""
        place = self.place()
        return place["pp"] == self.pp - 1 and place["tp"] == 0

    def group(self, name: str) -> dist.ProcessGroup:
        """Return the group of the processes that differ from this one in one dimension alone."""
        assert self.mesh is not None
        return self.mesh[name].get_group()

    @cached_property
    def context_group(self) -> dist.ProcessGroup:
        """The group of the processes that share the positions of the same rows."""
        step = self.fsdp * self.tp
        firsts = [rank for rank in range(self.n_processes) if self.place(rank)["cp"] == 0]
        groups = {first: dist.new_group(range(first, first + self.cp * step, step)) for first in firsts}
        return groups[self.rank - self.place()["cp"] * step]

    @cached_property
    def stage_group(self) -> dist.ProcessGroup | None:
        """The group of all processes with the same blocks; None: all processes."""
        if self.pp == 1:
            return None
        per_stage = self.n_processes // self.pp
        groups = [dist.new_group(range(i * per_stage, (i + 1) * per_stage)) for i in range(self.pp)]
        return groups[self.place()["pp"]]

    @cached_property
    def ends_group(self) -> dist.ProcessGroup:
        """The first and the last pipeline stage of this process's column, which both hold tied embeddings."""
        per_stage = self.n_processes // self.pp
        last = (self.pp - 1) * per_stage
        groups = [dist.new_group([i, i + last]) for i in range(per_stage)]
        return groups[self.rank % per_stage]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on any process; all must ask."""
        return flag if self.mesh is None else bool(self.total(torch.tensor(float(flag))) > 0)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes of what each has, the same bits on all of them."""
        if self.mesh is not None:
            dist.all_reduce(values)
        return values


def layout_of(config: ParallelConfig) -> Layout:
    """Return the layout that `config` asks for of the processes that torchrun has started, without joining them.

    Raises `BadValue` if the sizes do not multiply to the number of processes.
    """
    n = n_ranks()
    others = config.dp * config.tp * config.pp * config.cp
    fsdp = config.fsdp or max(1, n // others)
    layout = Layout(pp=config.pp, dp=config.dp, cp=config.cp, fsdp=fsdp, tp=config.tp, exact=config.exact, rank=rank())
    if others * fsdp != n:
        raise BadValue(
            f"parallel: {layout.text} is {others * fsdp} processes, but {n} are running: change a --parallel size, or "
            f"start with 'torchrun --nproc-per-node {others * fsdp} -m fewshot -- train ...'"
        )
    check(
        not config.exact or (config.tp == config.pp == config.cp == 1 and n & (n - 1) == 0),
        "parallel.exact adds in one order for dp and fsdp alone, and for 1, 2, 4, 8 ... processes; this is "
        f"{layout.text}",
    )
    return layout


def joined(layout: Layout, device: str) -> Layout:
    """Return the layout with its mesh, once every process has come; of one process as it is."""
    if layout.n_processes == 1:
        return layout
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    join(device)
    sizes = {"pp": layout.pp, "dp": layout.n_copies, "fsdp": layout.fsdp, "tp": layout.tp}
    mesh = init_device_mesh(device, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    return replace(layout, mesh=mesh)


def shares(n: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges of consecutive parts with these sizes, which add up to n."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    assert ends[-1] == n, f"{sizes} do not add up to {n}"
    return list(zip([0, *ends[:-1]], ends, strict=True))
