"""A shuffle that needs no memory: the place of one index at a time, as a pure function of a key.

A Feistel network over pairs (left, right) of Z_a x Z_b with a * b just above n; indices that land outside range(n)
are sent through again until they land inside (cycle walking), which keeps the map a bijection.
Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", sections 4 and 5.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from fewshot.base.rng import seed_of

Index = TypeVar("Index", int, np.ndarray)

_N_ROUNDS = 8
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: spreads the round number over all bits


def permuted(index: Index, n: int, *key: int | str) -> Index:
    """Return where the permutation of range(n) that belongs to `key` sends `index`, an int or an int64 array.

    Every index must lie in range(n); n is at least 1 and below 2**62. O(1) memory for an index, whatever n is.
    """
    places = np.atleast_1d(np.asarray(index, dtype=np.int64))
    assert 1 <= n < 2**62, n
    assert places.size == 0 or (places.min() >= 0 and places.max() < n), f"an index outside range({n})"
    seed = seed_of(*key)
    round_keys = np.array([seed ^ (i * _GOLDEN & _MASK) for i in range(1, _N_ROUNDS + 1)], dtype=np.uint64)
    sent = _feistel(places.astype(np.uint64), n, round_keys)
    while (outside := sent >= n).any():
        sent[outside] = _feistel(sent[outside], n, round_keys)
    if isinstance(index, np.ndarray):
        return sent.astype(np.int64).reshape(index.shape)
    return int(sent[0])


def _feistel(places: np.ndarray, n: int, round_keys: np.ndarray) -> np.ndarray:
    """Return one pass of the network, a bijection of range(a * b) with n <= a * b < n + a."""
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    left, right = np.divmod(places, np.uint64(b))
    for i, round_key in enumerate(round_keys):
        if i % 2 == 0:
            left = (left + _mixed(right ^ round_key)) % np.uint64(a)
        else:
            right = (right + _mixed(left ^ round_key)) % np.uint64(b)
    return left * np.uint64(b) + right


def _mixed(x: np.ndarray) -> np.ndarray:
    """Return a 32-bit hash of 64 bits, so that adding to it cannot overflow: half of SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(32)
