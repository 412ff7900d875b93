from __future__ import annotations

import numpy as np

from fewshot.base.rng import numpy_rng, python_rng, seed_of


def test_a_key_gives_the_same_seed_on_every_machine() -> None:
    # printf 'step\x1f7' | b2sum -l 64, read little-endian and shifted right by 1; Python's hash would differ
    assert seed_of("step", 7) == 8523654278490245763
    assert 0 <= seed_of("step", 7) < 2**63


def test_keys_are_not_run_together() -> None:
    seeds = {seed_of("a", "bc"), seed_of("ab", "c"), seed_of("abc"), seed_of("a", 1), seed_of("a", 11), seed_of()}
    assert len(seeds) == 6


def test_generators_belong_to_their_key_alone() -> None:
    assert np.array_equal(numpy_rng("x", 1).integers(0, 2**32, 4), numpy_rng("x", 1).integers(0, 2**32, 4))
    assert not np.array_equal(numpy_rng("x", 1).integers(0, 2**32, 4), numpy_rng("x", 2).integers(0, 2**32, 4))
    first = python_rng("x", 1).random()
    python_rng("x", 2).random()
    assert python_rng("x", 1).random() == first != python_rng("x", 2).random()
