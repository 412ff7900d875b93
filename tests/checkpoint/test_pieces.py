from __future__ import annotations

import pytest
import torch

from fewshot.checkpoint.pieces import Piece, key_of, overlap, parse_key, whole, whole_pieces, within


def test_a_whole_tensor_has_its_name_as_key_and_a_part_its_ranges_too() -> None:
    tensor = torch.arange(35.0).view(5, 7)
    assert whole("wte.weight", tensor).key == "wte.weight"
    part = Piece("wte.weight", (5, 7), ((1, 4), (0, 7)), tensor[1:4])
    assert part.key == "wte.weight@1:4,0:7"
    assert [piece.key for piece in whole_pieces({"a": tensor, "b": torch.tensor(3.0)})] == ["a", "b"]


@pytest.mark.parametrize("ranges", [((0, 5), (0, 7)), ((2, 5), (0, 7)), ((0, 5), (6, 7)), ((0, 1), (0, 1))])
def test_a_key_is_read_back_as_name_and_rectangle(ranges: tuple[tuple[int, int], ...]) -> None:
    shape = [end - start for start, end in ranges]
    assert parse_key(key_of("h.0.attn.c_attn.weight/exp_avg", (5, 7), ranges), shape) == (
        "h.0.attn.c_attn.weight/exp_avg",
        ranges,
    )


def test_scalars_and_names_with_an_at_sign_are_names() -> None:
    assert parse_key("wte.weight/step", ()) == ("wte.weight/step", ())
    assert key_of("wte.weight/step", (), ()) == "wte.weight/step"
    assert parse_key("odd@name", (3,)) == ("odd@name", ((0, 3),))
    assert parse_key(key_of("odd@0:1", (3,), ((1, 2),)), (1,)) == ("odd@0:1", ((1, 2),))


def test_a_key_that_tells_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a@0:3 has the shape \(2,\)"):
        parse_key("a@0:3", (2,))


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (((0, 6), (0, 7)), "no part of"),
        (((2, 1), (0, 7)), "no part of"),
        (((0, 4), (0, 7)), r"torch\.Size\(\[5, 7\]\) is not"),
    ],
)
def test_a_piece_must_be_what_it_says(ranges: tuple[tuple[int, int], ...], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Piece("a", (5, 7), ranges, torch.zeros(5, 7))


def test_two_rectangles_share_what_is_in_both() -> None:
    assert overlap(((0, 4), (2, 6)), ((3, 9), (0, 5))) == ((3, 4), (2, 5))
    assert overlap(((0, 4), (2, 6)), ((4, 9), (0, 5))) is None  # they touch
    assert overlap((), ()) == ()  # a scalar is all of itself
    assert within(((3, 4), (2, 5)), ((0, 4), (2, 6))) == (slice(3, 4), slice(0, 3))
