from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.patterns.layout import blocks, mask
from fewshot.patterns.pattern import (
    PATTERNS,
    Banded,
    Block,
    Columns,
    Dense,
    Fixed,
    Pattern,
    PerHead,
    Strided,
    Union,
)

N = 8
GRIDS = {  # written by hand: rows are queries, columns are keys, # is read
    Dense(): "#....... ##...... ###..... ####.... #####... ######.. #######. ########",
    Banded(1): "#....... .#...... ..#..... ...#.... ....#... .....#.. ......#. .......#",
    Banded(3): "#....... ##...... ###..... .###.... ..###... ...###.. ....###. .....###",
    Strided(3): "#....... .#...... ..#..... #..#.... .#..#... ..#..#.. #..#..#. .#..#..#",
    Block(3): "#....... ##...... ###..... ...#.... ...##... ...###.. ......#. ......##",
    Columns(3, 1): "#....... .#...... ..#..... ..##.... ..#.#... ..#..#.. ..#..##. ..#..#.#",
    Columns(3, 1, 2): "#....... ##...... #.#..... #..#.... #..##... #..#.#.. #..#..#. #..#..##",
    Columns(4, 2, 1): "#....... ##...... ###..... ##.#.... ##..#... ##..##.. ##..###. ##..##.#",
    Fixed(3, 1): "#....... ##...... ###..... ..##.... ..###... ..####.. ..#..##. ..#..###",
    Fixed(4, 2): "#....... ##...... ###..... ####.... ..###... ..####.. ..#####. ..######",
    Banded(2) | Strided(3): "#....... ##...... .##..... #.##.... .#.##... ..#.##.. #..#.##. .#..#.##",
}
MORE = [
    PerHead(Banded(2), Dense(), Strided(3)),
    PerHead(Fixed(4, 1), Block(4) | Columns(4, 1, 1)),
    Block(2) | Columns(4, 1, 3) | Strided(5),
]


def drawn(rows: np.ndarray) -> str:
    return " ".join("".join("#" if allowed else "." for allowed in row) for row in rows)


@pytest.mark.parametrize("pattern", GRIDS, ids=str)
def test_pattern_reads_what_the_hand_written_grid_shows(pattern: Pattern) -> None:
    assert drawn(mask(pattern, N, N)) == GRIDS[pattern]


def test_every_pattern_in_the_table_is_tried_here() -> None:
    tried = {type(part) for pattern in [*GRIDS, *MORE] for part in (pattern, *pattern.parts)}
    assert set(PATTERNS.values()) <= tried


@pytest.mark.parametrize("pattern", [*GRIDS, *MORE], ids=str)
def test_ints_numpy_and_torch_get_the_same_answer(pattern: Pattern) -> None:
    n, n_heads = 13, 4
    one_by_one = [[[pattern.allows(q, k, h) for k in range(n)] for q in range(n)] for h in range(n_heads)]
    assert all(type(cell) is bool for head in one_by_one for row in head for cell in row)
    h, q, k = np.ogrid[:n_heads, :n, :n]
    from_numpy = np.broadcast_to(pattern.allows(q, k, h), (n_heads, n, n))
    from_torch = pattern.allows(*(torch.from_numpy(axis) for axis in (q, k, h))).expand(n_heads, n, n)
    assert from_torch.dtype == torch.bool
    assert np.array_equal(from_numpy, one_by_one)
    assert np.array_equal(from_torch.numpy(), one_by_one)


@pytest.mark.parametrize("pattern", [*GRIDS, *MORE], ids=str)
def test_every_query_reads_itself_and_nothing_later(pattern: Pattern) -> None:
    for head in range(6):
        rows = mask(pattern, 41, 41, head=head)
        assert rows.diagonal().all()
        assert not np.triu(rows, 1).any()


def test_banded_query_reads_exactly_window_keys() -> None:
    assert [k for k in range(20) if Banded(4).allows(10, k)] == [7, 8, 9, 10]


@pytest.mark.parametrize(("n", "ctx"), [(16, 4), (15, 7), (5, 9)])
def test_banded_is_openai_local_and_one_key_short_of_the_paper(n: int, ctx: int) -> None:
    band_part = np.tril(np.triu(np.ones((n, n), bool), -(ctx - 1)))  # tf.matrix_band_part(ones, ctx - 1, 0)
    assert np.array_equal(mask(Banded(ctx), n, n), band_part)
    paper = [[max(0, i - ctx) <= j <= i for j in range(n)] for i in range(n)]
    assert np.array_equal(mask(Banded(ctx + 1), n, n), paper)


def test_strided_is_openai_strided_mask() -> None:
    n, stride = 17, 5
    x = np.arange(n)[:, None]
    y = x.T
    assert np.array_equal(mask(Strided(stride), n, n), np.logical_and(x >= y, (x - y) % stride == 0))


def test_strided_attention_is_dense_within_a_residue() -> None:
    n, stride = 24, 4  # OpenAI's kernel transposes [n / l, l] so that equal residues stand together
    order = np.arange(n).reshape(-1, stride).T.ravel()
    within = np.kron(np.eye(stride), np.tri(n // stride)).astype(bool)
    assert np.array_equal(mask(Strided(stride), n, n)[np.ix_(order, order)], within)


def test_columns_are_the_paper_second_fixed_step_and_itself() -> None:
    n, block, c = 30, 8, 3
    paper = np.array([[j % block in range(block - c, block) and j <= i for j in range(n)] for i in range(n)])
    assert np.array_equal(mask(Columns(block, c), n, n), paper | np.eye(n, dtype=bool))


def test_fixed_with_128_and_8_reads_the_columns_the_paper_names() -> None:
    read = [k for k in range(400) if Fixed(128, 8).allows(299, k)]
    assert read == [*range(120, 128), *range(248, 300)]


@pytest.mark.parametrize("vertical_size", [1, 2])
def test_fixed_heads_match_openai_block_layout_with_distinct_verticals(vertical_size: int) -> None:
    n, local, block = 64, 16, 4
    stride, n_blocks = local // block, n // block
    verticals = np.arange(stride)[::-1].reshape(-1, vertical_size)  # counted from the end of each stride
    heads = PerHead(*(Block(local) | Columns(local, vertical_size * block, index) for index in range(len(verticals))))
    for head in range(2 * len(verticals)):
        layout = np.zeros((n_blocks, n_blocks), bool)
        for row in range(n_blocks):
            layout[row, row - row % stride : row + 1] = True
            for column in verticals[head % len(verticals)]:
                layout[row, column : row + 1 : stride] = True
        assert np.array_equal(blocks(heads, n, block, head), layout)


def test_fixed_equals_the_union_of_its_two_steps() -> None:
    assert Fixed(16, 4) == Block(16) | Columns(16, 4) == Columns(16, 4) | Block(16)
    assert hash(Fixed(16, 4)) == hash(Columns(16, 4) | Block(16))
    assert Fixed(16, 4).parts == (Block(16), Columns(16, 4))
    assert Block(16) | Columns(8, 4) != Fixed(16, 4) != Block(16) | Columns(16, 4, 1)


def test_union_does_not_depend_on_order_grouping_or_repetition() -> None:
    a, b, c = Strided(7), Banded(5), Columns(6, 2, 1)
    merged = a | b | c
    assert merged == c | (b | a) == (a | c) | (c | b | a)
    assert merged.parts == (b, c, a)
    assert a | a == a
    assert (Fixed(4, 1) | a).parts == (Block(4), Columns(4, 1), a)
    assert Dense() | a | b == Dense()


def test_union_with_heads_merges_head_by_head() -> None:
    both = PerHead(Banded(2), Banded(3)) | PerHead(Strided(2), Strided(3), Strided(4))
    assert [both.for_head(h) for h in range(7)] == [Banded(2 + h % 2) | Strided(2 + h % 3) for h in range(7)]


def test_needs_heads_says_whether_heads_differ() -> None:
    assert PerHead(Dense(), Banded(2)).needs_heads
    assert not PerHead(Banded(2), Banded(2)).needs_heads
    assert not (Banded(2) | Strided(3)).needs_heads


@pytest.mark.parametrize("pattern", [*GRIDS, *MORE], ids=str)
def test_patterns_survive_pickle_copy_and_hash(pattern: Pattern) -> None:
    again = pickle.loads(pickle.dumps(pattern))
    assert again == pattern == copy.deepcopy(pattern)
    assert hash(again) == hash(pattern)


def test_patterns_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Banded(3).window = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Banded(0), "window of banded must be a whole number from 1 to 2147483647, got 0"),
        (lambda: Banded(2.0), "window of banded .* got 2.0"),
        (lambda: Banded(True), "window of banded .* got True"),
        (lambda: Banded(2**31), "window of banded"),
        (lambda: Strided(-1), "stride of strided .* got -1"),
        (lambda: Block(0), "block of block"),
        (lambda: Columns(8, 9), "c of columns must be a whole number from 1 to 8, got 9"),
        (lambda: Columns(8, 3, 2), "index of columns must be a whole number from 0 to 1, got 2"),
        (lambda: Fixed(8, 0), "c of fixed must be a whole number from 1 to 8, got 0"),
        (lambda: PerHead(Dense()), "perhead needs two patterns or more, got 1"),
        (lambda: PerHead(Dense(), PerHead(Dense(), Banded(2))), "other than perhead, got 'perhead"),
        (lambda: PerHead(Dense(), 3), "other than perhead, got '3'"),
        (lambda: Union((Strided(3), Banded(2))), r"written A \| B"),
    ],
)
def test_bad_values_name_the_field_the_range_and_the_value(make, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        make()


def test_a_pattern_merges_only_with_a_pattern() -> None:
    with pytest.raises(TypeError):
        Banded(3) | 4
