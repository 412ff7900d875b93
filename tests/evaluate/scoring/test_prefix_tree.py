from __future__ import annotations

import pytest
import torch

from fewshot.evaluate.scoring.prefix_tree import LEAST_PREFIX, ROW_TOKENS, PrefixTree, TreeRow, build_prefix_tree


def texts(tree: PrefixTree) -> list[tuple[int, ...]]:
    """The sequences as the tree holds them: the prefix, and the tokens at a sequence's places."""
    return [(*tree.prefix, *(tree.rows[row].tokens[place] for place in places)) for row, places in tree.places]


def random_sequences(n: int, *, prefix: int, n_vocab: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(n)
    lengths = torch.randint(1, 60, (n,), generator=generator).tolist()
    return [(*range(prefix), *torch.randint(n_vocab, (length,), generator=generator).tolist()) for length in lengths]


@pytest.mark.parametrize("branching", [True, False])
@pytest.mark.parametrize(("prefix", "n_vocab"), [(0, 2), (5, 2), (40, 3), (40, 1)])
def test_a_tree_holds_every_sequence_and_each_token_reads_what_stands_before_it(
    prefix: int, n_vocab: int, branching: bool
) -> None:
    sequences = random_sequences(50, prefix=prefix, n_vocab=n_vocab)
    tree = build_prefix_tree(sequences, longest_prefix=prefix, branching=branching)
    assert texts(tree) == sequences
    assert tree.prefix == (sequences[0][:prefix] if branching and prefix >= LEAST_PREFIX else ())
    for row, places in tree.places:
        if places:
            assert tree.rows[row].depths()[places[-1]] == len(places) - 1
            assert tree.rows[row].sees()[places[-1]].nonzero()[0].tolist() == places


def test_shared_beginnings_are_there_once_and_rows_stay_short() -> None:
    sequences = random_sequences(200, prefix=40, n_vocab=2)
    tree = build_prefix_tree(sequences, longest_prefix=40)
    assert sum(map(len, tree.rows)) < sum(map(len, sequences)) / 2
    assert max(map(len, tree.rows)) <= ROW_TOKENS
    whole = build_prefix_tree(sequences, longest_prefix=40, branching=False)
    assert all(row.is_line for row in whole.rows)
    assert len(whole.rows) == len(set(sequences))


def test_a_known_prefix_is_taken_again_where_it_is_nearly_as_long() -> None:
    sequences = [(*range(40), 7, 8), (*range(40), 9)]
    assert build_prefix_tree(sequences, longest_prefix=40, known=tuple(range(37))).prefix == tuple(range(37))
    assert build_prefix_tree(sequences, longest_prefix=40, known=tuple(range(20))).prefix == tuple(range(40))
    assert build_prefix_tree(sequences, longest_prefix=40, known=(5,) * 39).prefix == tuple(range(40))


def test_a_row_of_two_branches_as_worked_by_hand() -> None:
    row = TreeRow(tokens=[4, 5, 6, 7], parents=[-1, 0, 0, -1])
    assert row.depths() == [0, 1, 1, 0]
    assert row.sees().astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert not row.is_line
