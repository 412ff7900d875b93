"""One order of all sums: the same bits on any number of processes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from layout_runs import BLOCKS, GROUPS, Runs, sha_of_run
from torch import Tensor, nn

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.parallel.exact import _Tree, _TreeReduceScatter, add_up_in_order, squares_by_row
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.parts import Part, parts_of

ALONE = {"exact": "exact-1", "exact-muon": "exact-muon-1"}
SPREAD = [
    *("exact-fsdp2", "exact-fsdp4", "exact-fsdp4>1", "exact-fsdp4>1>fsdp2"),
    *("exact-muon-fsdp2", "exact-muon-fsdp4", "exact-muon-dp2fsdp2", "exact-muon-fsdp4>1>fsdp2"),
]


def pairwise(leaves: list[Tensor]) -> Tensor:
    """Return the sum of the leaves, filled up with zeros to a full tree, by its definition."""
    size = 1
    while size < len(leaves):
        size *= 2
    level = [*leaves, *[torch.zeros_like(leaves[0])] * (size - len(leaves))]
    while len(level) > 1:
        level = [level[i] + level[i + 1] for i in range(0, len(level), 2)]
    return level[0] + 0.0


def leaves_of(n: int) -> list[Tensor]:
    """Return values of which every order of adding gives other last digits."""
    draw = torch.Generator().manual_seed(n)
    return [torch.randn(50, generator=draw) * 10.0 ** (i % 5) for i in range(n)]


@pytest.mark.parametrize("name", SPREAD)
def test_weights_and_moments_have_the_bits_of_one_process(name: str, runs: Runs) -> None:
    alone = ALONE[name.rpartition("-")[0]]
    assert sha_of_run(runs.path(name), 12) == sha_of_run(runs.path(alone), 12)
    assert sha_of_run(runs.path(name), 12) != sha_of_run(runs.path(alone), 8)


@pytest.mark.parametrize("name", SPREAD)
def test_losses_and_norms_have_the_bits_of_one_process(name: str, runs: Runs) -> None:
    alone, spread = runs.reports[ALONE[name.rpartition("-")[0]]][0], runs.reports[name][0]
    first = 12 - len(spread["losses"])
    assert spread["losses"] == alone["losses"][first:]
    assert spread["norms"] == alone["norms"][first:]
    assert spread["val_loss"] == alone["val_loss"]


def test_without_exact_the_bits_differ(runs: Runs) -> None:
    assert sha_of_run(runs.path("tied-fsdp4"), 12) != sha_of_run(
        runs.path("tied-1"), 12
    )  # so the claims above say much


@pytest.mark.parametrize("n", range(1, 18))
def test_a_counter_adds_as_a_tree_does(n: int) -> None:
    tree, leaves = _Tree(), leaves_of(n)
    for leaf in leaves:
        tree.add([leaf.clone(), 2 * leaf])
    total, doubled = tree.total()
    assert torch.equal(total, pairwise(leaves))
    assert torch.equal(doubled, pairwise([2 * leaf for leaf in leaves]))
    if n > 4:
        assert not torch.equal(total, sum(leaves))


@pytest.mark.parametrize("n_processes", [1, 2, 4])
@pytest.mark.parametrize("n", [1, 3, 4, 7, 8])
def test_processes_that_deal_out_the_leaves_build_the_same_tree(
    n: int, n_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = [torch.zeros(50)] * (-n % n_processes)
    leaves = [*leaves_of(n), *zeros]
    monkeypatch.setattr(dist, "get_world_size", lambda group: n_processes)
    tree = _Tree()
    for first in range(0, len(leaves), n_processes):  # a round of micro-batches, a reduce-scatter
        together = torch.cat(leaves[first : first + n_processes])
        monkeypatch.setattr(
            dist, "all_to_all_single", lambda shares, _, group, together=together: shares.copy_(together)
        )
        share = torch.empty(50)
        _TreeReduceScatter()(share, torch.empty_like(together), None, dist.ReduceOp.SUM)
        tree.add([share])
    assert torch.equal(tree.total()[0], pairwise(leaves_of(n)))


def test_zero_has_one_sign() -> None:
    tree = _Tree()
    tree.add([torch.tensor([-0.0])])
    assert torch.signbit(tree.total()[0]).tolist() == [False]


def small_model() -> tuple[GPT, list[Part]]:
    model = GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=4, n_vocab=5), seed=1)
    return model, parts_of(model, Layout())


def test_gradients_of_the_last_step_are_no_part_of_the_sum() -> None:
    model, parts = small_model()
    tokens = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1], [1, 1, 4, 0]])

    def loss_of(number: int) -> Tensor:
        return model.loss(tokens[number : number + 1], tokens[number : number + 1], n_tokens=12)

    leaves: dict[str, list[Tensor]] = {part.name: [] for part in parts}
    for number in range(3):
        model.zero_grad()
        loss_of(number).backward()
        for part in parts:
            leaves[part.name].append(part.gradient.clone())
    for part in parts:
        part.parameter.grad = torch.full_like(part.parameter, 9.0)
    losses = list(add_up_in_order(loss_of, [0, 1, 2], parts))
    assert losses == [loss_of(number).detach() for number in range(3)]
    for part in parts:
        assert torch.equal(part.gradient, pairwise(leaves[part.name])), part.name


def test_squares_are_added_row_by_row_where_the_rows_lie_in_the_whole() -> None:
    gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight = nn.Parameter(torch.zeros(3, 2))
    weight.grad = gradient
    bias = nn.Parameter(torch.zeros(2))
    bias.grad = torch.tensor([-2.0, 0.5])
    parts = [
        Part("h.0.attn.c_attn.weight", (9, 2), weight, weight, (((1, 2), (0, 2)), ((7, 9), (0, 2))), True),
        Part("h.0.attn.c_proj.bias", (4,), bias, bias, (((2, 4),),), True),
    ]
    squares = squares_by_row(parts)
    assert squares.dtype == torch.float64
    assert squares.tolist() == [0, 5, 0, 0, 0, 0, 0, 25, 61, 0, 0, 4, 0.25]


@pytest.mark.parametrize(("name", "n_exchanges"), [("exact-fsdp2", 0), ("exact-muon-fsdp2", 2)])
def test_gradients_are_exchanged_once_a_micro_batch(name: str, n_exchanges: int, runs: Runs) -> None:
    rounds = [1, 2, 2, 2, 2, 2]  # of the steps of 4, 5, 6, 8, 8, 8 rows, in twos, on two processes
    for report in runs.reports[name]:
        steps = report["exchanges"][:6]
        assert [step["gradient"] for step in steps] == [
            {"allgather_base": (GROUPS + BLOCKS) * n, "alltoall_base": GROUPS * n, "allreduce": 1} for n in rounds
        ]
        assert [step["update"].get("alltoall_base", 0) for step in steps] == [n_exchanges] * 6
