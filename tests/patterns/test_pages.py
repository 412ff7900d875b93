from __future__ import annotations

import numpy as np
import pytest

from fewshot.patterns.layout import mask
from fewshot.patterns.pages import PAGE, held, is_dense, keys_of, most_pages, page_list, pages_needed
from fewshot.patterns.pattern import Banded, Block, Columns, Dense, Fixed, Pattern, Strided

TRIED = [
    Dense(),
    Banded(1),
    Banded(5),
    Banded(40),
    Strided(1),
    Strided(4),
    Block(6),
    Block(100),
    Columns(6, 2, 1),
    Columns(40, 2),
    Fixed(8, 3),
    Block(4) | Block(6),
    Banded(3) | Strided(5),
    Banded(3) | Columns(6, 2),
    Strided(4) | Strided(6),
    Columns(6, 2) | Columns(5, 2),
    Columns(6, 2) | Strided(4),
    Banded(2) | Fixed(8, 2) | Strided(3) | Columns(5, 1),
]


@pytest.mark.parametrize("n_ctx", [1, 7, 41, 70])
@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_what_a_query_reads_and_what_is_held_are_as_the_mask_says(pattern: Pattern, n_ctx: int) -> None:
    allowed = mask(pattern, n_ctx, n_ctx)
    for end in range(n_ctx + 1):
        later = np.flatnonzero(allowed[end:].any(axis=0))
        assert set(later[later < end]) <= set(held(pattern, n_ctx, end).tolist())
        if end:
            assert np.array_equal(keys_of(pattern, end - 1), np.flatnonzero(allowed[end - 1]))


@pytest.mark.parametrize("n_queries", [1, 3, 4])
@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_masks_of_pages_hold_every_key_of_every_query(pattern: Pattern, n_queries: int) -> None:
    allowed = mask(pattern, 70, 70)
    for first in range(70 - n_queries):
        pages, masks = page_list(pattern, first, n_queries, 4)
        assert masks.shape == (len(pages), 4)
        assert masks.any(axis=1).all()
        for i in range(4):
            keys = [
                page * PAGE + bit
                for page, bits in zip(pages.tolist(), masks[:, i].tolist(), strict=True)
                for bit in range(PAGE)
                if bits >> bit & 1
            ]
            assert keys == (np.flatnonzero(allowed[first + i]).tolist() if i < n_queries else [])


@pytest.mark.parametrize("n_new", [1, 5, 16, 40])
@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_the_pages_of_a_text_are_never_more_than_said(pattern: Pattern, n_new: int) -> None:
    for length in (1, 15, 16, 33, 70, 200):
        most = 0
        for end in range(length):
            new = set(range(end // PAGE, -(-min(length, end + n_new) // PAGE)))
            most = max(most, len(pages_needed(pattern, 200, end) | new))
        assert most <= most_pages(pattern, 200, length, n_new) <= -(-length // PAGE)
        if n_new == 1:
            assert most == most_pages(pattern, 200, length, n_new)


def test_only_what_can_be_read_again_is_held() -> None:
    n_ctx, end = 100_008, 99_999
    assert len(held(Banded(256), n_ctx, end)) == 255
    assert len(held(Block(128), n_ctx, end)) == end % 128
    assert len(held(Fixed(128, 8), n_ctx, end)) == end % 128 + 8 * (end // 128)
    assert len(held(Columns(128, 8), n_ctx, end)) == 8 * (end // 128)
    assert len(held(Dense(), n_ctx, end)) == len(held(Strided(128), n_ctx, end)) == end
    assert most_pages(Banded(256), 2048, 2048, 1) == 17
    assert most_pages(Dense(), 2048, 2048, 1) == 128


@pytest.mark.parametrize("pattern", [*TRIED, Banded(40), Banded(41), Strided(1), Block(40), Block(41)], ids=str)
def test_a_pattern_is_dense_where_its_mask_is_that_of_dense_attention(pattern: Pattern) -> None:
    for n_ctx in (1, 2, 40):
        masks = [mask(kind, n_ctx, n_ctx) for kind in pattern.for_heads(2)]
        dense = all(np.array_equal(found, mask(Dense(), n_ctx, n_ctx)) for found in masks)
        assert is_dense(pattern, n_ctx, 2) == dense
