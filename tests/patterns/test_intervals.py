from __future__ import annotations

import numpy as np
import pytest

from fewshot.patterns.intervals import SEGMENT, pairs_in_blocks, phases
from fewshot.patterns.layout import mask
from fewshot.patterns.pattern import Banded, Block, Columns, Dense, Fixed, Pattern, Strided

TRIED = [
    Dense(),
    Banded(1),
    Banded(5),
    Banded(SEGMENT + 88),
    Strided(1),
    Strided(4),
    Block(6),
    Columns(6, 2, 1),
    Fixed(8, 3),
    Block(4) | Block(6),
    Block(8) | Columns(8, 2, 1),
    Banded(3) | Strided(5),
    Banded(3) | Columns(6, 2),
    Banded(4) | Fixed(8, 2),
    Strided(2) | Strided(4),
    Strided(4) | Strided(6),
    Strided(2) | Strided(3) | Strided(5),
    Columns(6, 2, 1) | Columns(6, 2, 0),
    Columns(6, 2) | Columns(5, 2),
    Columns(6, 2) | Strided(4),
    Banded(2) | Fixed(8, 2) | Strided(3) | Columns(5, 1),
]
LENGTHS = [(1, 1, 0), (2, 2, 0), (7, 7, 0), (33, 33, 0), (33, 40, 5), (1, 20, 19), (9, 50, 30), (1300, 1300, 0)]


@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_intervals_hold_every_allowed_pair_exactly_once(pattern: Pattern) -> None:
    for n_queries, n_keys, q_start in LENGTHS:
        times = np.zeros((n_queries, n_keys), dtype=int)
        for phase in phases(pattern, n_queries, n_keys, q_start):
            for interval in phase.intervals:
                for query, low, high in zip(interval.queries, interval.low, interval.high, strict=True):
                    times[query - q_start, interval.keys[low:high]] += 1
        assert np.array_equal(times, mask(pattern, n_queries, n_keys, q_start))


@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_intervals_of_a_phase_share_no_query_and_no_key(pattern: Pattern) -> None:
    for n_queries, n_keys, q_start in LENGTHS:
        for phase in phases(pattern, n_queries, n_keys, q_start):
            for lists in (
                [interval.queries for interval in phase.intervals],
                [interval.keys for interval in phase.intervals],
            ):
                together = np.concatenate(lists)
                assert len(np.unique(together)) == len(together)


@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_intervals_lie_within_the_keys_and_never_step_back(pattern: Pattern) -> None:
    for n_queries, n_keys, q_start in LENGTHS:
        for phase in phases(pattern, n_queries, n_keys, q_start):
            for interval in phase.intervals:
                assert interval.low.min() >= 0
                assert (interval.low <= interval.high).all()
                assert interval.high.max() == len(interval.keys)
                assert all((np.diff(ends) >= 0).all() for ends in (interval.low, interval.high, interval.queries))


def test_a_band_is_cut_so_that_threads_can_share_it() -> None:
    even, odd = phases(Banded(256), 8192, 8192)
    assert len(even.intervals) == len(odd.intervals) == 8192 // SEGMENT // 2
    assert sum(interval.n_pairs for phase in (even, odd) for interval in phase.intervals) == 8192 * 256 - 256 * 255 // 2


@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_pairs_in_blocks_are_those_of_the_mask(pattern: Pattern) -> None:
    for block in (1, 16):
        for n_queries, n_keys, q_start in LENGTHS[:-1]:
            rows = np.add.reduceat(
                mask(pattern, n_queries, n_keys, q_start), np.arange(0, n_queries, block), axis=0, dtype=int
            )
            expected = np.add.reduceat(rows, np.arange(0, n_keys, block), axis=1)
            assert np.array_equal(pairs_in_blocks(pattern, n_queries, n_keys, block, q_start), expected)


def test_a_segment_as_long_as_the_queries_leaves_a_band_whole() -> None:
    (only,) = phases(Banded(5), 2000, 2000, 0, 2000)
    assert len(only.intervals) == 1
    assert len(only.intervals[0].queries) == 2000


def test_strides_longer_than_the_text_cost_nothing() -> None:
    assert len(phases(Strided(2**31 - 1) | Strided(2**31 - 2), 64, 64)) == 1
    assert (
        sum(interval.n_pairs for phase in phases(Strided(1000) | Strided(1001), 64, 64) for interval in phase.intervals)
        == 64
    )
