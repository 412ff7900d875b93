"""One order of all sums, whatever the number of processes: the same bits on 1, 2, 4 ... of them.

The gradients of a batch's micro-batches are the leaves of one binary tree in the order of their numbers. Micro-batch i
is worked by process i modulo the number of processes, so the lower levels of the tree join neighbouring processes and
the upper ones the rounds. It costs one exchange a micro-batch instead of one a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter  # set_custom_reduce_scatter is public, this not

from fewshot.train.parallel.parts import Part
from fewshot.train.parallel.sharded import LossOf


class _TreeReduceScatter(ReduceScatter):
    """Gives every process the others' gradients of its share whole, and adds them pairwise in the order of ranks."""

    def allocate(self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return memory for the gradients that are exchanged."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: dist.ReduceOp.RedOpType,
        async_op: bool = False,
    ) -> None:
        """Write the sum of this process's share to `output_tensor`."""
        shares = torch.empty_like(input_tensor)
        dist.all_to_all_single(shares, input_tensor, group=group)
        level = list(shares.chunk(dist.get_world_size(group)))
        while len(level) > 1:
            level = [a.add_(b) for a, b in zip(level[::2], level[1::2], strict=True)]
        output_tensor.copy_(level[0])


class _Tree:
    """Adds lists of tensors as a binary counter counts: what it carries are the tree's inner nodes."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, list[Tensor]]] = []  # height and sum, the highest first

    def add(self, leaf: list[Tensor]) -> None:
        """Add the next leaf; its tensors are kept and changed."""
        height, total = 0, leaf
        while self._nodes and self._nodes[-1][0] == height:
            torch._foreach_add_(self._nodes[-1][1], total)
            height, total = height + 1, self._nodes.pop()[1]
        self._nodes.append((height, total))

    def total(self) -> list[Tensor]:
        """Return the sum of all leaves; those that are missing to a full tree count as zeros."""
        (_, total), *higher = reversed(self._nodes)
        for _, node in higher:
            torch._foreach_add_(node, total)
            total = node
        return list(torch._foreach_add(total, 0.0))  # -0 becomes 0, as if the zeros had been added


def reduce_in_order(groups: Sequence[FSDPModule]) -> None:
    """Let FSDP add gradients over the processes as the tree has it; every process computes with one thread.

    How a product is cut over threads decides its last digits, too.
    """
    torch.set_num_threads(1)
    for group in groups:
        group.set_custom_reduce_scatter(_TreeReduceScatter())


def add_up_in_order(loss_of: LossOf, mine: Sequence[int], parts: Sequence[Part]) -> Iterator[Tensor]:
    """Leave the sum of all micro-batches' gradients in the parameters; yield the losses of this process's ones."""
    tree = _Tree()
    for number in mine:
        for part in parts:
            part.parameter.grad = None  # or the last sum would be the first leaf
        loss = loss_of(number)
        loss.backward()
        yield loss.detach()
        tree.add([part.gradient for part in parts if part.gradient is not None])
    for part, gradient in zip(parts, tree.total(), strict=True):
        assert part.gradient is not None
        part.gradient.copy_(gradient)


def squares_by_row(parts: Sequence[Part]) -> Tensor:
    """Return the sum of squares of every row of every gradient, float64; 0 in rows that this process does not hold.

    A row is never cut, so its sum has the same bits in every layout.
    """
    sums = []
    for part in parts:
        by_row = torch.zeros(part.shape[0], dtype=torch.float64)
        gradient, first = part.gradient, 0
        assert gradient is not None
        for (start, end), *_ in part.ranges:
            rows = gradient[first : first + end - start].double().square()
            by_row[start:end] = rows.reshape(end - start, -1).sum(1)
            first += end - start
        sums.append(by_row)
    return torch.cat(sums)
