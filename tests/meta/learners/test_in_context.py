from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.in_context import (
    ContextModelConfig,
    LabelModel,
    PairModel,
    as_sequences,
    points_by_examples,
    squared_errors,
)

SMALL = ContextModelConfig(n_layers=2, d_model=12, n_heads=3)


def pair_model(*, d_x: int = 4, d_y: int = 2, n_pairs: int = 5) -> PairModel:
    torch.manual_seed(0)
    return PairModel(SMALL, d_x=d_x, d_y=d_y, n_pairs=n_pairs)


def pairs(n_rows: int = 3, n_pairs: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n_rows, n_pairs, 4, generator=generator), torch.randn(n_rows, n_pairs, 2, generator=generator)


@torch.no_grad()
def test_a_prediction_reads_its_own_x_and_the_pairs_before_it_and_nothing_else():
    model, (x, y) = pair_model(), pairs()
    predicted = model(x, y)
    assert predicted.shape == (3, 5, 2)
    for place in range(5):
        other_x, other_y = x.clone(), y.clone()
        other_x[:, place] += 1
        moved = (model(other_x, y) - predicted).abs().amax((0, 2))
        assert (moved[:place] == 0).all()
        assert (moved[place:] > 0).all()
        other_y[:, place] += 1
        moved = (model(x, other_y) - predicted).abs().amax((0, 2))
        assert (moved[: place + 1] == 0).all()
        assert (moved[place + 1 :] > 0).all()


@torch.no_grad()
def test_the_input_is_x_and_y_by_turns_each_with_the_embedding_of_its_type():
    model, (x, y) = pair_model(), pairs()
    types = model.gpt.wte(torch.tensor([0, 1]))
    row = []
    for place in range(5):
        row += [model.x_in.weight @ x[1, place] + types[0], model.y_in.weight @ y[1, place] + types[1]]
    hidden = model.gpt.read(torch.stack(row)[None, :9])
    torch.testing.assert_close(model(x, y)[1, 3], model.y_out(hidden[0, 6]))


@torch.no_grad()
def test_fewer_pairs_than_the_model_is_made_for_are_predicted_alike():
    model, (x, y) = pair_model(), pairs()
    torch.testing.assert_close(model(x[:, :3], y[:, :3]), model(x, y)[:, :3])
    with pytest.raises(ContextTooLong, match="11 tokens"):
        model(torch.cat([x, x[:, :1]], 1), torch.cat([y, y[:, :1]], 1))


@torch.no_grad()
def test_x_and_y_of_a_pair_share_the_number_of_the_pair():
    model, (x, y) = pair_model(), pairs()
    before = model(x, y)
    model.gpt.wpe.weight[2] += 1.0  # of the third pair
    moved = (model(x, y) - before).abs().amax((0, 2))
    assert (moved[:2] == 0).all()
    assert (moved[2:] > 0).all()
    assert model.gpt.wpe.weight.shape == (5 + 2, 12)  # five pairs, two places in a pair


@torch.no_grad()
def test_a_label_model_reads_item_and_label_by_turns_and_answers_at_the_last_item():
    torch.manual_seed(0)
    model = LabelModel(SMALL, n_dims=4, n_labels=7, n_pairs=2, positions="rows(2)")
    items, labels = torch.randn(3, 3, 4), torch.tensor([[0, 6], [2, 2], [5, 1]])
    row = [model.item_in(items[2, 0]), model.gpt.wte.weight[5], model.item_in(items[2, 1]), model.gpt.wte.weight[1]]
    hidden = model.gpt.read(torch.stack([*row, model.item_in(items[2, 2])])[None])
    torch.testing.assert_close(model(items, labels)[2], model.gpt.wte.weight @ hidden[0, 4])


@torch.no_grad()
def test_the_pattern_says_which_positions_a_layer_reads():
    torch.manual_seed(0)
    near = LabelModel(
        ContextModelConfig(n_layers=1, d_model=12, n_heads=3, pattern="banded(2)"),
        n_dims=4, n_labels=7, n_pairs=2, positions="learned",
    )  # fmt: skip
    items, other = torch.randn(3, 3, 4), torch.tensor([[0, 6], [2, 2], [5, 1]])
    first, last = other.clone(), other.clone()
    first[:, 0], last[:, 1] = 3, 3
    assert torch.equal(near(items, first), near(items, other))
    assert not torch.equal(near(items, last), near(items, other))


def test_every_weight_of_a_pair_model_learns():
    model, (x, y) = pair_model(), pairs()
    squared_errors(model(x, y), y).mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.parameters())


def test_examples_stand_before_queries_and_errors_are_summed_over_the_numbers_of_a_y():
    episodes = Episodes(
        torch.zeros(2, 1, 1), torch.ones(2, 1, 1), torch.full((2, 3, 1), 2.0), torch.full((2, 3, 1), 3.0)
    )
    x, y = as_sequences(episodes)
    assert x[0].flatten().tolist() == [0, 2, 2, 2]
    assert y[1].flatten().tolist() == [1, 3, 3, 3]
    assert squared_errors(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[4.0, 0.0]]])).tolist() == [[13.0]]


def test_points_are_means_over_tasks_with_the_flops_of_reading_so_much():
    model, (x, y) = pair_model(), pairs()
    values = torch.tensor([[1.0, 5.0, 2.0], [3.0, 5.0, 4.0]])
    first, last = points_by_examples(values, [0, 2], lambda k: model(x[:1, : k + 1], y[:1, : k + 1]))
    assert (first.n_examples, first.mean, first.n) == (0, 2.0, 2)
    assert (last.n_examples, last.mean) == (2, 3.0)
    assert first.low < 2.0 < first.high
    length = 2 * 2 + 1  # positions that 2 pairs and a query take; every product is two operations a weight
    blocks = 2 * (12 * 12**2) * length + 2 * (2 * 12 * length**2)  # weights of 2 blocks; scores and mixtures
    maps = (4 * 12) * 3 + (2 * 12) * 3 + (12 * 2) * 3  # x_in, y_in, y_out, at 3 places each
    assert last.flops == 2 * (blocks + maps)
    assert points_by_examples(values, [1])[0].flops is None


@pytest.mark.parametrize(("wrong", "message"), [({"n_heads": 5}, "not a multiple"), ({"n_layers": 0}, "n_layers is 0")])
def test_a_shape_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        PairModel(ContextModelConfig(**{"d_model": 12, **wrong}), d_x=1, n_pairs=3)
