from __future__ import annotations

import pytest

from fewshot.model.config import GPTConfig
from fewshot.model.footprint.parameters import (
    block_counts,
    first_counts,
    last_counts,
    n_block_parameters,
    n_embedding_parameters,
    n_parameters,
)
from fewshot.model.gpt import GPT, count_parameters
from fewshot.model.presets import PRESETS

SMALL = GPTConfig(n_layers=3, d_model=10, n_heads=2, d_head=4, d_ff=30, n_ctx=7, n_vocab=19, pattern="banded(3)")
VARIANTS = {
    "widths": SMALL,
    "untied": GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=5, n_vocab=11, tied=False),
    "post-ln": GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=5, n_vocab=11, block="post-ln"),
    "narrow": GPTConfig(n_layers=3, d_model=12, n_heads=2, d_qk=4, n_ctx=15, n_vocab=7, positions="rows(4)"),
    "image": GPTConfig(n_layers=1, d_model=12, n_heads=2, n_ctx=30, n_vocab=7, positions="image(2, 5, 3)"),
    **PRESETS,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_by_arithmetic_are_those_of_the_model_that_is_built(name: str) -> None:
    counted = count_parameters(VARIANTS[name])
    assert n_parameters(VARIANTS[name]) == counted["total"]
    assert n_parameters(VARIANTS[name]) - n_embedding_parameters(VARIANTS[name]) == counted["non_embedding"]


def test_parameters_of_the_blocks_are_those_in_them() -> None:
    for config in (SMALL, VARIANTS["narrow"]):
        built = [(name, p) for name, p in GPT(config).named_parameters() if name.startswith("h.")]
        assert n_block_parameters(config) == sum(p.numel() for _, p in built)
        counts = block_counts(config).times(config.n_layers)
        assert counts.matrices == sum(p.numel() for _, p in built if p.ndim == 2)
        assert counts.matrix_rows == sum(len(p) for _, p in built if p.ndim == 2)
        assert counts.vectors == sum(p.numel() for _, p in built if p.ndim == 1)


def test_a_model_that_could_never_be_built_is_counted_at_once() -> None:
    assert n_parameters(GPTConfig(n_layers=10**9, d_model=10**9, n_heads=1)) > 10**27


def test_tensor_parallelism_divides_matrices_and_their_own_biases_and_copies_the_rest() -> None:
    whole, half = block_counts(SMALL), block_counts(SMALL, tp=2)
    assert 2 * half.matrices == whole.matrices
    copied = 10 + 10 + 4 * 10  # two biases after the sums, two norms
    assert 2 * (half.vectors - copied) == whole.vectors - copied == 3 * 8 + 30


def test_a_tied_matrix_is_counted_once_and_an_own_one_beside_the_embedding() -> None:
    assert first_counts(SMALL).tables == 10 * (19 + 7)
    assert last_counts(SMALL, own_matrix=False).total == 2 * 10
    assert last_counts(SMALL, own_matrix=True).tables == 10 * 19
    assert last_counts(VARIANTS["post-ln"], own_matrix=False).total == 0
