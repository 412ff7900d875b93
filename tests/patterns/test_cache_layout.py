from __future__ import annotations

import numpy as np
import pytest

from fewshot.patterns.cache_layout import cache_layout, keys_of, readable_slots
from fewshot.patterns.layout import mask
from fewshot.patterns.pattern import Banded, Block, Columns, Dense, Fixed, Pattern, Strided

TRIED = [
    Dense(),
    Banded(1),
    Banded(5),
    Banded(40),
    Strided(1),
    Strided(4),
    Block(6),
    Columns(6, 2, 1),
    Fixed(8, 3),
    Block(4) | Block(6),
    Banded(3) | Strided(5),
    Banded(3) | Columns(6, 2),
    Strided(4) | Strided(6),
    Columns(6, 2) | Columns(5, 2),
    Columns(6, 2) | Strided(4),
    Banded(2) | Fixed(8, 2) | Strided(3) | Columns(5, 1),
]


@pytest.mark.parametrize("n_ctx", [1, 7, 41])
@pytest.mark.parametrize("piece", [1, 3, 50])
@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_every_query_finds_exactly_its_keys_in_the_buffer(pattern: Pattern, piece: int, n_ctx: int) -> None:
    layout, allowed = cache_layout(pattern, n_ctx), mask(pattern, n_ctx, n_ctx)
    buffer = np.full(layout.capacity, -1)
    for start in range(0, n_ctx, piece):
        end = min(start + piece, n_ctx)
        positions, slots = layout.writes(start, end)
        assert len(np.unique(slots)) == len(slots)
        buffer[slots] = positions
        keys = np.flatnonzero(allowed[end - 1])
        assert np.array_equal(keys_of(pattern, end - 1), keys)
        assert np.array_equal(np.sort(buffer[readable_slots(layout, end - 1)]), keys)
        if layout.span(end - 1) is not None:
            assert np.array_equal(np.sort(buffer[layout.span(end - 1)]), keys)
        held = layout.held(end)
        assert np.array_equal(buffer[layout.slots(held, end)], held)
        later = np.flatnonzero(allowed[end:].any(axis=0))
        assert set(later[later < end]) <= set(held)
        assert (later >= layout.first_needed(end)).all()


def test_only_what_can_be_read_again_is_kept() -> None:
    n_ctx = 100_008
    assert cache_layout(Banded(256), n_ctx).capacity == 256
    assert cache_layout(Block(128), n_ctx).capacity == 128
    assert cache_layout(Fixed(128, 8), n_ctx).capacity == 128 + 8 * (n_ctx // 128)
    assert cache_layout(Columns(128, 8), n_ctx).capacity == 1 + 8 * (n_ctx // 128)
    assert cache_layout(Dense(), n_ctx).capacity == n_ctx
    assert cache_layout(Strided(128), n_ctx).capacity == 128 * -(-n_ctx // 128)


@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_the_slots_of_one_new_position_are_those_it_is_written_to(pattern: Pattern) -> None:
    layout = cache_layout(pattern, 41)
    for position in range(41):
        positions, slots = layout.writes(position, position + 1)
        assert set(positions.tolist()) == {position}
        assert sorted(layout.new_slots(position)) == sorted(slots.tolist())


def test_the_keys_of_a_strided_query_lie_side_by_side() -> None:
    slots = readable_slots(cache_layout(Strided(32), 1000), 999)
    assert np.array_equal(slots, np.arange(slots[0], slots[0] + 32))
