from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from fewshot.meta.nn.networks import perceptron
from fewshot.meta.tasks.chains import ChainTasks, draw_chains, prefix_tasks, table_loss, transitions


def test_chains_follow_matrices_that_are_uniform_over_all_there_are():
    chains = draw_chains(3000, 400, n_symbols=3, generator=torch.Generator().manual_seed(0))
    assert chains.shape == (3000, 400)
    first = torch.bincount(chains[:, 0], minlength=3) / 3000
    assert first.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    stays = (chains[:, :-1] == 0) & (chains[:, 1:] == 0)
    share = stays.sum(1) / (chains[:, :-1] == 0).sum(1).clamp_min(1)
    often = (chains[:, :-1] == 0).sum(1) > 60  # a share of a Dirichlet(1) of three is Beta(1, 2)
    assert share[often].mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert share[often].var().item() == pytest.approx(1 / 18, abs=0.012)


def test_chains_come_from_the_generator_alone():
    drawn = [draw_chains(4, 9, n_symbols=3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_transitions_are_counted_by_hand():
    table = transitions(torch.tensor([[0, 2, 2, 0, 2]]), 3).sum(1)
    assert table.tolist() == [[[0, 0, 2], [0, 0, 0], [1, 0, 1]]]


def test_the_loss_on_a_table_and_its_gradients_are_those_on_its_transitions():
    (chain,) = draw_chains(1, 12, n_symbols=3, generator=torch.Generator().manual_seed(0))
    network = perceptron(3, (5,), 3, seed=0)
    task = prefix_tasks(chain[None], 3, n_support=10)[10:11]  # after 10 of its 11 transitions
    losses = [
        table_loss(network(task.support_x[0]), task.support_y[0]),
        cross_entropy(network(one_hot(chain[:10], 3).float()), chain[1:11]),
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    by_table, by_transitions = (torch.autograd.grad(loss, list(network.parameters())) for loss in losses)
    for ours, theirs in zip(by_table, by_transitions, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_support_set_is_any_number_of_first_transitions_and_the_query_set_those_that_follow():
    cycle = torch.tensor([[[0, 1, 0], [0, 0, 1], [1, 0, 0.0]]])  # 0, 1, 2, 0, ...
    drawn = ChainTasks(3, cycle).draw(400, 4, 6, torch.Generator().manual_seed(0))
    n_seen = (drawn.support_y * 4).sum((1, 2))
    assert set(n_seen.tolist()) == {0, 1, 2, 3, 4}
    assert torch.allclose(drawn.query_y, cycle / 3)  # six in a row are two of each
    for seen in (1, 2):
        tables = drawn.support_y[n_seen == seen]
        assert set((tables.flatten(1) > 0).sum(1).tolist()) == {seen}
        assert torch.allclose(tables[tables > 0], torch.tensor(1 / 4))
    assert torch.equal(drawn.support_x[7], torch.eye(3))


def test_every_place_is_a_task_of_the_transitions_before_it():
    tasks = prefix_tasks(torch.tensor([[1, 0, 0], [0, 1, 1]]), 2, n_support=1)
    assert tasks.support_y.tolist() == [[[0, 0], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]]
    assert tasks.query_x.argmax(-1).flatten().tolist() == [1, 0, 0, 1]
    assert tasks.query_y.argmax(-1).flatten().tolist() == [0, 0, 1, 1]
