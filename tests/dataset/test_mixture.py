from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from fewshot.base.errors import BadValue
from fewshot.dataset.mixture import Mixture


@pytest.fixture
def mix(pack: Callable) -> Callable[..., Mixture]:
    """mix({n_rows: weight, ...}) gives a mixture of sources with so many rows."""

    def mix(weights: dict[int, float], seed: int = 0) -> Mixture:
        return Mixture(tuple(pack(["x" * (2 * n)], n_ctx=2) for n in weights), tuple(weights.values()), seed)

    return mix


@pytest.mark.parametrize(
    ("weights", "slots"),
    [
        ((1.0,), (1000,)),
        ((3, 1), (750, 250)),
        ((0.5, 0.0, 0.5), (500, 0, 500)),
        ((1, 1, 1), (334, 333, 333)),
        ((2, 1), (667, 333)),
        ((1e9, 1, 1), (998, 1, 1)),
        ((60, 22, 8, 8, 3), (594, 218, 79, 79, 30)),  # the weights of Table 2.2, which sum to 101%
    ],
)
def test_slots_are_shares_of_a_thousand_by_largest_remainder(mix: Callable, weights: tuple, slots: tuple) -> None:
    source = mix({5: 1.0}).sources[0]
    assert Mixture((source,) * len(weights), weights, 0).slots == slots


def test_every_thousand_rows_hold_the_exact_shares(mix: Callable) -> None:
    mixture = mix({7: 0.5, 4000: 0.3, 90: 0.2})
    for first in (0, 1000, 123_000):
        sources, _ = mixture.locate(np.arange(first, first + 1000))
        assert np.bincount(sources).tolist() == [500, 300, 200]


def test_sources_are_interleaved_and_differently_in_each_thousand(mix: Callable) -> None:
    mixture = mix({7: 0.5, 400: 0.5})
    sources, _ = mixture.locate(np.arange(2000))
    assert 400 < np.count_nonzero(np.diff(sources[:1000])) < 600
    assert not np.array_equal(sources[:1000], sources[1000:])


def test_each_epoch_reads_every_row_once_in_a_new_order(mix: Callable) -> None:
    mixture = mix({77: 0.3, 450: 0.7})
    sources, inside = mixture.locate(np.arange(3000))
    for source, n_rows in enumerate((77, 450)):
        read = inside[sources == source]
        epochs = [read[i : i + n_rows] for i in range(0, len(read) - n_rows + 1, n_rows)]
        assert len(epochs) >= 4
        assert all(np.array_equal(np.sort(epoch), np.arange(n_rows)) for epoch in epochs)
        assert len({tuple(epoch.tolist()) for epoch in epochs}) == len(epochs)


def test_a_row_number_alone_decides_what_is_read(mix: Callable) -> None:
    mixture = mix({11: 0.9, 300: 0.1})
    together = np.stack(mixture.locate(np.arange(900, 2300)), axis=1)
    picked = np.array([2299, 900, 1000, 999, 1500])
    assert np.array_equal(np.stack(mixture.locate(picked), axis=1), together[picked - 900])


def test_seeds_and_sources_have_orders_of_their_own(mix: Callable) -> None:
    mixture = mix({500: 1.0})
    first, second = (dataclasses.replace(mixture, seed=seed).locate(np.arange(500))[1] for seed in (1, 2))
    assert not np.array_equal(first, second)
    twice = Mixture(mixture.sources * 2, (1, 1), 1)
    sources, inside = twice.locate(np.arange(1000))
    assert not np.array_equal(inside[sources == 0], inside[sources == 1])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0,), "2 sources have 1 weights"),
        ((0.5, -0.5), r"the weights are \(0.5, -0.5\)"),
        ((0.0, 0.0), r"at least one above 0"),
        ((1.0, float("nan")), "each must be at least 0"),
        ((1.0, float("inf")), "each must be at least 0"),
    ],
)
def test_impossible_weights_are_refused(mix: Callable, weights: tuple, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        Mixture(mix({5: 1, 6: 1}).sources, weights, 0)


def test_sources_that_do_not_fit_together_are_refused(mix: Callable, pack: Callable) -> None:
    (source,) = mix({5: 1.0}).sources
    with pytest.raises(BadValue, match="different n_ctx"):
        Mixture((source, pack(["long enough"], n_ctx=3)), (1, 1), 0)
    shard = dataclasses.replace(source.shards[0], tokenizer="other")
    with pytest.raises(BadValue, match="different tokenizers"):
        Mixture((source, dataclasses.replace(source, shards=(shard,))), (1, 1), 0)
    with pytest.raises(BadValue, match="at least one source"):
        Mixture((), (), 0)
    with pytest.raises(BadValue, match="1001 sources have a weight"):
        Mixture((source,) * 1001, (1.0,) * 1001, 0)
