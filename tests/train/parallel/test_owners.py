"""Whole matrices at their owners. Processes are threads here, which exchange through memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.muon import orthogonalise
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.owners import Owners
from fewshot.train.parallel.parts import Part, ranges_at

T = TypeVar("T")
CONFIG = GPTConfig(n_layers=2, d_model=16, n_heads=4, n_ctx=7, n_vocab=11, d_ff=36, d_qk=2)
SIZES = [
    *({"fsdp": 2}, {"fsdp": 3}, {"fsdp": 4}, {"dp": 2}, {"dp": 2, "fsdp": 2}, {"tp": 2}, {"tp": 2, "fsdp": 3}),
    *({"tp": 4, "dp": 2}, {"dp": 2, "fsdp": 2, "exact": True}),
]


class Threads:
    """Stands for the processes of a layout: runs something on all of them at once."""

    def __init__(self, n: int) -> None:
        self._n, self._barrier = n, threading.Barrier(n, timeout=20)
        self._sent: dict[int, list[Tensor]] = {}
        self._rank = threading.local()
        self.n_exchanges = 0

    def __call__(self, action: Callable[[int], T]) -> list[T]:
        """Return what the action gives at each rank."""

        def at(rank: int) -> T:
            self._rank.value = rank
            return action(rank)

        with ThreadPoolExecutor(self._n) as pool:
            return list(pool.map(at, range(self._n)))

    def all_to_all_single(self, out: Tensor, sent: Tensor, out_sizes: list[int], sizes: list[int], group: Any) -> None:
        """Do what torch's does."""
        rank = self._rank.value
        self._sent[rank] = list(sent.clone().split(sizes))
        self._barrier.wait()
        arrived = [self._sent[other][rank] for other in range(self._n)]
        assert [len(part) for part in arrived] == out_sizes
        out.copy_(torch.cat(arrived))
        self._barrier.wait()
        self.n_exchanges += rank == 0


def matrices() -> dict[str, Tensor]:
    """Return a value for each matrix of the blocks."""
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in GPT(CONFIG).named_parameters() if name.startswith("h.")}
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items() if len(shape) == 2}


def owners_at(layout: Layout, wholes: dict[str, Tensor]) -> tuple[Owners, list[Tensor]]:
    """Return the owners as a process knows them, and what it holds of the matrices."""
    parts, values = [], []
    for name, whole in wholes.items():
        ranges = ranges_at(name, tuple(whole.shape), CONFIG, layout, layout.rank)
        held = [whole[tuple(slice(*ends) for ends in cut)] for cut in ranges]
        columns = ranges[0][1] if ranges else (0, whole.shape[1])
        local = nn.Parameter(torch.cat([whole.new_empty(0, columns[1] - columns[0]), *held]))
        parts.append(Part(name, tuple(whole.shape), local, local, ranges, True))
        values.append(local.detach())
    return Owners(parts, CONFIG, layout), values


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_what_owners_compute_of_whole_matrices_has_the_bits_of_one_process(
    sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wholes = matrices()
    n = Layout(**sizes).n_processes
    processes = Threads(n)
    monkeypatch.setattr(dist, "all_to_all_single", processes.all_to_all_single)
    expected = {name: orthogonalise(whole[None], torch.float32)[0] for name, whole in wholes.items()}

    def work(rank: int) -> tuple[list[int], list[Tensor], list[Tensor]]:
        layout = Layout(**sizes, rank=rank)
        owners, values = owners_at(layout, wholes)
        mine = owners.gather(values)
        for number, whole in mine.items():
            assert torch.equal(whole, list(wholes.values())[number]), number
            assert owners.is_mine(number)
            assert owners.shape(number) == tuple(whole.shape)
        done = {number: orthogonalise(whole[None], torch.float32)[0] for number, whole in mine.items()}
        shared = owners.scatter(done, values)
        return sorted(mine), shared, owners_at(layout, expected)[1]

    results = processes(work)
    assert sorted(number for mine, _, _ in results for number in mine) == list(range(len(wholes)))
    assert max(len(mine) for mine, _, _ in results) <= -(-len(wholes) // n)  # they take turns
    for _, shared, right in results:
        assert all(torch.equal(got, wanted) for got, wanted in zip(shared, right, strict=True))
    assert processes.n_exchanges == 2


def test_one_process_owns_everything_and_exchanges_nothing() -> None:
    wholes = matrices()
    owners, values = owners_at(Layout(), wholes)
    mine = owners.gather(values)
    assert [mine[number].data_ptr() for number in range(len(wholes))] == [value.data_ptr() for value in values]
    assert all(a is b for a, b in zip(owners.scatter(mine, values), mine.values(), strict=True))


def test_stages_own_their_own_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    wholes = {name: whole for name, whole in matrices().items() if name.startswith("h.1")}
    sizes = {"pp": 2, "tp": 2}
    processes = Threads(2)
    monkeypatch.setattr(dist, "all_to_all_single", processes.all_to_all_single)
    monkeypatch.setattr(Layout, "stage_group", None)

    def work(rank: int) -> list[int]:
        owners, values = owners_at(Layout(**sizes, rank=2 + rank), wholes)  # the second stage's processes
        mine = owners.gather(values)
        assert all(torch.equal(whole, list(wholes.values())[number]) for number, whole in mine.items())
        return sorted(mine)

    assert processes(work) == [[0, 2], [1, 3]]
