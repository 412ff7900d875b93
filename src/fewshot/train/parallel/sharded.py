"""What FSDP does here: each process keeps a share of every parameter, its gradient and moments, by torch's FSDP2.

Each block is a group, and what is outside the blocks is one. A group's parameters are gathered whole just before they
are used, forward and backward, and its gradients are added and shared out as soon as the backward pass has made them.
Plain data parallel (dp), and context parallel (cp), are a second dimension of the same mesh, over which the shares are
copies. Gradients are sums,
not means: the loss has been divided by all tokens of the batch already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from fewshot.model.gpt import GPT
from fewshot.train.parallel.mesh import Layout

LossOf = Callable[[int], Tensor]  # of the micro-batch with this number, divided by all tokens of the batch


def shard(model: GPT, layout: Layout, *, root: nn.Module | None = None) -> list[FSDPModule]:
    """Shard a model in place over the layout's data-parallel processes; return its groups, the outermost last.

    `root` is the module that is called, if it is one around the model.
    """
    if layout.n_data * layout.cp == 1:
        return []
    assert layout.mesh is not None
    mesh = layout.mesh["fsdp"] if layout.n_copies == 1 else layout.mesh["dp", "fsdp"]
    if layout.exact:  # copies would be added in an order of their own
        mesh = layout.mesh["dp", "fsdp"]._flatten("data")
    blocks = [block for block in model.h if next(block.parameters(), None) is not None]
    groups: list[FSDPModule] = [fully_shard(module, mesh=mesh) for module in [*blocks, root or model]]
    if root is None:
        register_fsdp_forward_method(model, "loss")
    for group in groups:
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)  # gloo has no sum that divides
    return groups


def add_up(loss_of: LossOf, mine: Sequence[int], groups: Sequence[FSDPModule]) -> Iterator[Tensor]:
    """Add the gradients of this process's micro-batches to the parameters'; yield their losses.

    With FSDP the gradients of all but the last stay on the process, whole: they are added over the processes once.
    """
    for place, number in enumerate(mine):
        for group in groups[-1:]:
            group.set_requires_gradient_sync(place == len(mine) - 1)
        loss = loss_of(number)
        loss.backward()
        yield loss.detach()


def micro_batches_of(layout: Layout, n: int) -> list[int]:
    """Return the numbers of the micro-batches that this process works: each has as many, maybe some beyond the last.

    Those beyond hold no row that counts: under FSDP all processes must compute together.
    """
    rounds = -(-n // layout.n_data)
    return [i * layout.n_data + layout.data_rank for i in range(rounds)]
