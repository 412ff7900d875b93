from __future__ import annotations

import numpy as np
import pytest

from fewshot.base.errors import BadValue
from fewshot.patterns.layout import (
    block_counts,
    blocks,
    density,
    hops,
    keys_per_query,
    layers_until_heard,
    mask,
    mean_keys_per_query,
)
from fewshot.patterns.pattern import Banded, Block, Columns, Dense, Fixed, Pattern, PerHead, Strided
from fewshot.patterns.schedule import parse


@pytest.mark.parametrize(("window", "percent"), [(128, 12.1), (256, 23.4), (512, 43.7), (768, 60.9), (1024, 75.0)])
def test_a_band_keeps_this_share_of_2048_positions(window: int, percent: float) -> None:
    assert round(100 * density(Banded(window), 2048), 1) == percent


@pytest.mark.parametrize(
    ("pattern", "keys", "percent"),
    [
        (Banded(129), 126, 8.2),  # the paper's first strided step reads l + 1 keys
        (Strided(128), 12.5, 0.8),
        (Banded(129) | Strided(128), 137, 8.9),
        (Banded(128) | Strided(128), 137, 8.9),  # the key that the shorter band leaves out is in the stride
        (Fixed(128, 32), 432.5, 28.1),
        (Fixed(128, 8), 156.5, 10.2),
        (Dense(), 1536.5, 100.0),
    ],
    ids=str,
)
def test_mean_keys_of_3072_positions(pattern: Pattern, keys: float, percent: float) -> None:
    assert mean_keys_per_query(pattern, 3072) == pytest.approx(keys, abs=0.5 if keys in (126, 137) else 1e-9)
    assert round(100 * density(pattern, 3072), 1) == percent


def test_density_averages_over_heads() -> None:
    assert density(PerHead(Dense(), Banded(1)), 9) == pytest.approx((1 + 9 / 45) / 2)


def test_mask_of_later_queries_is_the_lower_part_of_the_square() -> None:
    pattern = PerHead(Banded(3), Fixed(4, 1))
    for head in range(3):
        square = mask(pattern, 11, 11, head=head)
        assert np.array_equal(mask(pattern, 4, 9, 5, head), square[5:9, :9])


def test_rows_done_in_pieces_count_as_the_whole_square() -> None:
    n, pattern = 1100, Banded(700) | Strided(3)
    square = mask(pattern, n, n)
    assert np.array_equal(keys_per_query(pattern, n), square.sum(axis=1))
    assert block_counts(pattern, n, 64).sum() == square.sum()


@pytest.mark.parametrize("pattern", [Banded(4), Columns(6, 2, 1), Strided(5), PerHead(Dense(), Block(3))], ids=str)
@pytest.mark.parametrize(("n", "block"), [(12, 4), (13, 4), (7, 1), (5, 8)])
def test_blocks_hold_any_allowed_pair(pattern: Pattern, n: int, block: int) -> None:
    n_blocks = -(-n // block)
    for head in range(2):
        square = mask(pattern, n, n, head=head)
        expected = [
            [square[i * block : (i + 1) * block, j * block : (j + 1) * block].sum() for j in range(n_blocks)]
            for i in range(n_blocks)
        ]
        assert np.array_equal(block_counts(pattern, n, block, head), expected)
        assert np.array_equal(blocks(pattern, n, block, head), np.array(expected) > 0)


def test_band_layout_is_openai_local_block_rule() -> None:
    n, block, window = 64, 8, 24
    q, k = np.ogrid[: n // block, : n // block]
    assert np.array_equal(blocks(Banded(window), n, block), (k <= q) & (k + window // block >= q))


@pytest.mark.parametrize(
    ("text", "n", "layers"),
    [
        ("dense", 1, 0),
        ("dense", 9, 1),
        ("banded(1)", 5, None),
        ("strided(2)", 5, None),
        ("block(4)", 5, None),
        ("columns(4, 1)", 9, None),
        ("banded(2)", 9, 8),  # one position a layer
        ("banded(4)", 10, 3),  # three positions a layer
        ("banded(5) | strided(5)", 30, 2),  # one merged head
        ("alternate(banded(5), strided(5))", 30, 2),  # the two steps in turn
        ("alternate(strided(5), banded(5))", 30, 2),
        ("perhead(strided(5), banded(5))", 30, 2),  # the two steps side by side
        ("alternate(banded(5), banded(5), strided(5))", 30, 3),
        ("fixed(5, 1)", 30, 2),  # a block's last column has read the block
        ("alternate(block(5), columns(5, 1))", 30, 2),
        ("alternate(columns(5, 1), block(5))", 30, 3),  # summaries of nothing first: once more around
        ("alternate(banded(1), dense)", 6, 2),
        ("alternate(dense, banded(256))", 300, 1),
    ],
)
def test_hops_are_the_layers_until_all_is_heard(text: str, n: int, layers: int | None) -> None:
    assert hops(parse(text), n) == layers


@pytest.mark.parametrize("text", ["alternate(banded(3), strided(4), block(2))", "fixed(6, 2)", "banded(3)"])
def test_hops_agree_with_matrix_powers(text: str) -> None:
    n, schedule = 23, parse(text)
    heard, layers = np.eye(n, dtype=int), 0
    while (heard == 0)[np.tril_indices(n)].any():
        heard = np.minimum(mask(schedule.for_layer(layers), n, n).astype(int) @ heard, 1)
        layers += 1
    assert hops(schedule, n) == layers


@pytest.mark.parametrize("text", ["banded(3)", "alternate(banded(4), strided(4))", "block(4)", "fixed(4, 1)"])
def test_layers_until_heard_are_those_of_a_walk_through_the_layers(text: str) -> None:
    schedule, n = parse(text), 13
    layers = layers_until_heard(schedule, n)
    heard = [{q} for q in range(n)]
    for n_layers in range(12):
        for q in range(n):
            assert set(np.flatnonzero((layers[q] >= 0) & (layers[q] <= n_layers))) == heard[q]
        pattern = schedule.for_layer(n_layers)
        heard = [set().union(*(heard[k] for k in range(q + 1) if pattern.allows(q, k))) for q in range(n)]
    reached = (layers[np.tri(n, dtype=bool)] >= 0).all()
    assert hops(schedule, n) == (layers.max() if reached else None)


def test_empty_layouts_are_refused() -> None:
    with pytest.raises(BadValue, match="at least 1 position, got 0"):
        density(Dense(), 0)
    with pytest.raises(BadValue, match="a block needs at least 1 position, got 0"):
        blocks(Dense(), 8, 0)
