from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot.base.errors import BadValue
from fewshot.corpus.document import Document
from fewshot.dataset.pack import Packed, document_numbers
from fewshot.dataset.tokenise import build_shards

TEXTS = ["a" * 3, "b", "cdefghijk", "lm", "nopqrstuvwx"]
EOT = 59_999
TOKENS = [i for text in TEXTS for i in [*map(ord, text), EOT]]


@pytest.mark.parametrize("max_tokens_per_shard", [1, 6, 13, 100])
@pytest.mark.parametrize("n_ctx", [1, 4, 5, 29])
def test_rows_equal_slices_of_the_concatenation(pack: Callable, n_ctx: int, max_tokens_per_shard: int) -> None:
    packed = pack(TEXTS, n_ctx=n_ctx, max_tokens_per_shard=max_tokens_per_shard)
    expected = [TOKENS[i : i + n_ctx + 1] for i in range(0, len(TOKENS), n_ctx)]
    expected = [row for row in expected if len(row) == n_ctx + 1]
    assert packed.n_rows == len(expected)
    assert packed.rows(np.arange(packed.n_rows)).tolist() == expected
    backwards = np.arange(packed.n_rows)[::-1]
    assert packed.rows(backwards).tolist() == expected[::-1]
    assert packed.rows(backwards).dtype == np.int64


def test_a_row_may_span_many_shards(pack: Callable) -> None:
    packed = pack(TEXTS, n_ctx=len(TOKENS) - 1, max_tokens_per_shard=1)
    assert len(packed.shards) == 5
    assert packed.rows(np.array([0])).tolist() == [TOKENS]


def test_every_token_but_the_first_is_a_target_once_when_rows_divide_the_text(pack: Callable) -> None:
    packed = pack(["x" * 6 + "y" * 5], n_ctx=11)  # 12 tokens with the end of text
    assert packed.rows(np.arange(packed.n_rows))[:, 1:].ravel().tolist() == [120] * 5 + [121] * 5 + [EOT]


def test_too_little_text_says_how_much_there_is_and_what_to_do(pack: Callable) -> None:
    with pytest.raises(BadValue, match=r"has 4 tokens, one row of n_ctx 4 needs 5: give more text or lower n_ctx"):
        pack(["abc"], n_ctx=4)
    assert pack(["abcd"], n_ctx=4).n_rows == 1


def test_impossible_packings_are_refused(pack: Callable) -> None:
    packed = pack(TEXTS, n_ctx=4)
    with pytest.raises(BadValue, match="n_ctx is 0"):
        Packed(packed.shards, 0)
    other = dataclasses.replace(packed.shards[0], tokenizer="other")
    with pytest.raises(BadValue, match="different tokenizers"):
        Packed((*packed.shards, other), 4)
    with pytest.raises(BadValue, match="has 0 tokens"):
        Packed((), 4)


@pytest.mark.parametrize("index", [-1, 7])
def test_a_row_that_is_not_there_is_refused(pack: Callable, index: int) -> None:
    with pytest.raises(AssertionError, match=f"row {index} of 7"):
        pack(TEXTS, n_ctx=4).rows(np.array([index]))


def test_document_numbers_count_the_ends_before_each_position() -> None:
    tokens = np.array([[5, 0, 6, 7, 0, 0, 8], [0, 1, 2, 3, 4, 5, 0]])
    assert document_numbers(tokens, 0).tolist() == [[0, 0, 1, 1, 1, 2, 3], [0, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize(("name", "said"), [("my-books-train", "training"), ("my-books-val", "validation")])
def test_too_little_text_names_its_source(tmp_path: Path, code_points: Callable, name: str, said: str) -> None:
    shards = build_shards(lambda: iter([Document(id="d", text="ab", source="s")]), code_points(), tmp_path, name=name)
    with pytest.raises(
        BadValue, match=f"the {said} text of source 'my-books' has 3 tokens, one row of n_ctx 32 needs 33"
    ):
        Packed(shards, 32)
