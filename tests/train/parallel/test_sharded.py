"""Data parallel: the batch's rows are spread over processes, each of which keeps a share of the weights."""

from __future__ import annotations

import pytest
import torch
from layout_runs import (
    BLOCKS,
    GROUPS,
    MICRO_BATCHES,
    SAVED_EVERY,
    TRAINED,
    Runs,
    check_agrees,
    layout_of_run,
    rows_of,
)

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.sharded import add_up, micro_batches_of, shard

UNSAVED = (0, 1, 2, 4, 5, 6)  # steps after which nothing is saved, from 0


@pytest.mark.parametrize("name", ["tied-fsdp2", "tied-fsdp4", "tied-dp2fsdp2", "untied-fsdp4", "untied-dp2"])
def test_rows_spread_over_processes_train_as_on_one(name: str, runs: Runs) -> None:
    check_agrees(runs, name)


@pytest.mark.parametrize("n", [0, 1, 4, 5, 11])
@pytest.mark.parametrize("sizes", [{}, {"fsdp": 4}, {"dp": 2, "fsdp": 2}, {"dp": 3, "tp": 2}], ids=str)
def test_micro_batches_are_dealt_out_in_turn_equally_many_to_each(sizes: dict[str, int], n: int) -> None:
    layouts = [Layout(**sizes, rank=rank) for rank in range(Layout(**sizes).n_processes)]
    dealt = [micro_batches_of(layout, n) for layout in layouts]
    assert len({len(mine) for mine in dealt}) == 1
    counted = [mine for layout, mine in zip(layouts, dealt, strict=True) if layout.counts_loss]
    assert sorted(number for mine in counted for number in mine if number < n) == list(range(n))
    assert sum(map(len, counted)) - n < max(1, layouts[0].n_data)


@pytest.mark.parametrize("name", [name for names in TRAINED for name in names])
def test_a_run_reads_each_row_once_and_the_same_rows_as_on_one_process(name: str, runs: Runs) -> None:
    first_row = sum([4, 5, 6, 8, 8, 8, 8, 8][: name.count(">") * SAVED_EVERY])
    assert rows_of(runs, name) == {
        number: sha for number, sha in rows_of(runs, f"{name.rpartition('-')[0]}-1").items() if number >= first_row
    }
    assert sorted(rows_of(runs, name)) == list(range(first_row, 87))
    layout = Layout(**layout_of_run(name))
    n_readers = layout.n_processes // layout.n_data  # tensor-parallel processes and stages read the same rows
    assert sum(len(report["rows"]) for report in runs.reports[name]) == (87 - first_row) * n_readers


def test_a_run_is_longer_than_an_epoch_whose_rows_come_again(runs: Runs) -> None:
    rows = rows_of(runs, "tied-1")
    assert len(rows) == 87
    assert len(set(rows.values())) < 45


def test_one_process_has_no_groups_and_adds_gradients_up() -> None:
    model = GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=4, n_vocab=5), seed=1)
    assert shard(model, Layout()) == []
    tokens = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1], [1, 1, 4, 0]])

    def loss_of(number: int) -> torch.Tensor:
        return model.loss(tokens[number : number + 1], tokens[number : number + 1], n_tokens=12)

    losses = list(add_up(loss_of, [0, 1, 2], []))
    added = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    whole = model.loss(tokens, tokens, n_tokens=12)
    whole.backward()
    torch.testing.assert_close(sum(losses), whole.detach())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(added[name], weight.grad)


def test_fsdp_gathers_a_group_twice_a_micro_batch_and_adds_its_gradients_once_a_step(runs: Runs) -> None:
    steps = runs.reports["tied-fsdp2"][0]["exchanges"]
    rounds = [-(-n // 2) for n in MICRO_BATCHES]
    gathered = GROUPS + BLOCKS  # what is outside the blocks stays gathered until the backward pass
    assert [step["gradient"] for step in steps[:6]] == [
        {"allgather_base": gathered * n, "reduce_scatter_base": GROUPS, "allreduce": 1} for n in rounds
    ]
    assert {1, 2} == set(rounds)


def test_copies_are_added_up_once_a_step(runs: Runs) -> None:
    steps = runs.reports["untied-dp2"][0]["exchanges"]
    assert [step["gradient"] for step in steps[:6]] == [{"allreduce": GROUPS + 1}] * 6  # each group, and the totals


@pytest.mark.parametrize("name", ["tied-fsdp2", "tied-tp2", "tied-pp2", "untied-dp2"])
def test_after_an_update_processes_exchange_one_vote(name: str, runs: Runs) -> None:
    for report in runs.reports[name]:
        assert [report["exchanges"][step]["rest"] for step in UNSAVED] == [{"allreduce": 1}] * 6
