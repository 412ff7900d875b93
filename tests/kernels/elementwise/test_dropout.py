"""What is dropped belongs to a row's key."""

from __future__ import annotations

import pytest
import torch

from fewshot.kernels.elementwise.dropout import Dropout

KEYS = torch.tensor([3, 2**61 + 7, 11])


def test_a_row_keeps_the_same_values_whatever_stands_beside_it() -> None:
    x = torch.rand(3, 5, 7) + 1
    together = Dropout(0.4, KEYS).at(2)(x)
    for row in range(3):
        assert torch.equal(Dropout(0.4, KEYS[row : row + 1]).at(2)(x[row : row + 1]), together[row : row + 1])
    assert len({tuple((row == 0).flatten().tolist()) for row in together}) == 3


def test_places_drop_different_values() -> None:
    x = torch.ones(3, 400)
    zeros = torch.stack([Dropout(0.5, KEYS).at(place)(x) == 0 for place in (-1, 0, 1, 95)]).float()
    for i in range(4):
        for j in range(i):
            assert 0.4 < (zeros[i] == zeros[j]).float().mean() < 0.6  # as two fair coins agree


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_the_probability_and_the_mean_stays(probability: float) -> None:
    x = torch.ones(3, 50_000)
    dropped = Dropout(probability, KEYS)(x)
    assert (dropped == 0).float().mean(1).tolist() == pytest.approx([probability] * 3, abs=0.01)
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability)).item()}


def test_heads_drop_what_they_drop_among_all_heads() -> None:
    weights = torch.rand(3, 6, 4, 4) + 1
    together = Dropout(0.4, KEYS).of_weights(weights)
    upper = Dropout(0.4, KEYS, first_head=4).of_weights(weights[:, 4:])
    assert torch.equal(upper, together[:, 4:])
