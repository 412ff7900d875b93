from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from fewshot.dataset.permute import permuted


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10, 97, 1000, 65537])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_permuted_is_a_bijection(n: int, seed: int) -> None:
    sent = permuted(np.arange(n), n, "test", seed)
    assert sent.dtype == np.int64
    assert np.array_equal(np.sort(sent), np.arange(n))


def test_one_index_goes_where_the_array_sends_it() -> None:
    grid = np.arange(12).reshape(3, 4)
    sent = permuted(grid, 1000, 7, "a")
    assert sent.shape == (3, 4)
    assert [[permuted(int(i), 1000, 7, "a") for i in row] for row in grid] == sent.tolist()
    assert type(permuted(5, 1000, 7, "a")) is int


def test_no_index_gives_no_index() -> None:
    assert permuted(np.arange(0), 10, 1).shape == (0,)


def test_different_keys_give_different_permutations() -> None:
    seen = {tuple(permuted(np.arange(100), 100, *key).tolist()) for key in [(0,), (1,), (0, 0), (0, 1), ("0", "a")]}
    assert len(seen) == 5


def test_huge_ranges_are_reached_without_memory() -> None:
    n = 2**61 + 11
    sent = permuted(np.array([0, 1, n - 1]), n, 3)
    assert len(set(sent.tolist())) == 3
    assert sent.min() >= 0
    assert sent.max() < n


@pytest.mark.parametrize("n", [2, 3])
def test_over_keys_all_permutations_are_equally_likely(n: int) -> None:
    counts = Counter(tuple(permuted(np.arange(n), n, key).tolist()) for key in range(1200))
    expected = 1200 / len(list(itertools.permutations(range(n))))
    assert all(abs(counts[p] - expected) < 5 * expected**0.5 for p in itertools.permutations(range(n)))


def test_over_keys_an_index_goes_everywhere_equally_often() -> None:
    n, n_keys = 10, 3000
    sent = np.stack([permuted(np.arange(n), n, key) for key in range(n_keys)])
    for index in range(n):
        chi_square = ((np.bincount(sent[:, index], minlength=n) - n_keys / n) ** 2 / (n_keys / n)).sum()
        assert chi_square < 33.7  # chi-square with 9 degrees of freedom exceeds this once in 10,000


def test_neighbours_are_scattered() -> None:
    n = 100_000
    sent = permuted(np.arange(n), n, "scatter")
    assert abs(np.corrcoef(np.arange(n), sent)[0, 1]) < 5 / n**0.5
    steps = np.abs(np.diff(sent))
    assert abs(steps.mean() / (n / 3) - 1) < 0.02  # two uniform draws are n / 3 apart on average
    tenths = np.bincount(sent[: n // 10] * 10 // n, minlength=10)
    assert np.abs(tenths - 1000).max() < 150


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_the_range_is_refused(index: int) -> None:
    with pytest.raises(AssertionError, match=r"outside range\(10\)"):
        permuted(index, 10, 0)
