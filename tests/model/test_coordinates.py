from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.model.coordinates import coordinates, table_sizes


@pytest.mark.parametrize(
    ("text", "n_ctx", "sizes"),
    [
        ("learned", 2048, (2048,)),
        ("rows(128)", 12_288, (96, 128)),
        ("rows(5)", 13, (3, 5)),  # the last row is not full
        ("image(32, 32, 3)", 3072, (32, 32, 3)),
        (" image( 2,3 ,4)", 24, (2, 3, 4)),
    ],
)
def test_a_text_names_the_sizes_of_its_tables(text: str, n_ctx: int, sizes: tuple[int, ...]) -> None:
    assert table_sizes(text, n_ctx=n_ctx) == sizes


def test_coordinates_are_row_and_column_or_row_column_and_channel() -> None:
    assert coordinates(9, (4, 4)) == [2, 1]
    assert coordinates(14, (2, 3, 3)) == [1, 1, 2]  # 14 = 1 * 9 + 1 * 3 + 2
    assert coordinates(7, (11,)) == [7]
    assert torch.stack(coordinates(torch.arange(6), (2, 3))).tolist() == [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize("sizes", [(60,), (6, 10), (4, 5, 3)])
def test_no_two_positions_share_all_coordinates(sizes: tuple[int, ...]) -> None:
    assert len({tuple(coordinates(p, sizes)) for p in range(60)}) == 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotary", "positions is 'rotary', allowed: learned, rows(WIDTH), image(HEIGHT, WIDTH, CHANNELS)"),
        ("rows(3, 4)", "allowed: learned, rows(WIDTH)"),
        ("image(4, 6)", "allowed: learned, rows(WIDTH)"),
        ("rows(-3)", "allowed: learned, rows(WIDTH)"),
        ("rows(0)", "positions is 'rows(0)': the width must be from 1 to n_ctx, 24"),
        ("rows(25)", "positions is 'rows(25)': the width must be from 1 to n_ctx, 24"),
        ("image(4, 3, 3)", "positions is 'image(4, 3, 3)', which has 36 positions, but n_ctx is 24"),
    ],
)
def test_positions_that_cannot_be_built_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadValue) as caught:
        table_sizes(text, n_ctx=24)
    assert message in str(caught.value)
