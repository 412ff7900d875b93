from __future__ import annotations

import pytest
import torch

from fewshot.model.positions import Positions


def test_a_vector_is_the_sum_of_those_of_its_coordinates() -> None:
    torch.manual_seed(0)
    positions = Positions((2, 3, 4), 5)
    rows, columns, channels = positions.weight.split([2, 3, 4])
    found = positions(torch.tensor([[0, 23], [17, 6]]))
    expected = [[(0, 0, 0), (1, 2, 3)], [(1, 1, 1), (0, 1, 2)]]
    for i in range(2):
        for j in range(2):
            row, column, channel = expected[i][j]
            torch.testing.assert_close(found[i, j], rows[row] + columns[column] + channels[channel])


def test_learned_positions_are_the_rows_of_their_table_and_one_beyond_is_an_error() -> None:
    positions = Positions((7,), 5)
    assert torch.equal(positions(torch.arange(2, 6)), positions.weight[2:6])
    with pytest.raises(IndexError):
        positions(torch.tensor([7]))
