"""One character, one token; what was never seen is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.base.errors import BadValue
from fewshot.tokenizer.chars import Chars, train_chars
from fewshot.tokenizer.load import load_tokenizer


def test_ids_follow_code_points_and_end_of_text_is_last() -> None:
    chars = train_chars(["banana", "été 🙂"])
    assert chars.encode(" abnté🙂") == [0, 1, 2, 3, 4, 5, 6]
    assert (chars.n_vocab, chars.eot) == (8, 7)
    assert chars.encode("") == []
    assert chars.encode_to_numpy("ab").dtype == np.uint32


def test_shakespeare_has_65_characters_and_comes_back(shared_data: Path) -> None:
    text = (shared_data / "text" / "tinyshakespeare.txt").read_text()
    chars = train_chars([text])
    assert chars.n_vocab == 65 + 1
    ids = chars.encode_to_numpy(text)
    assert len(ids) == 1_115_394
    assert chars.decode(ids[:50_000]) == text[:50_000]


@given(st.text(min_size=1))
def test_any_text_comes_back(text: str) -> None:
    chars = train_chars([text])
    assert chars.decode(chars.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "named"), [("aQ", "'Q' (U+0051)"), ("a🙂", "'🙂' (U+1F642)"), ("b\0", r"'\x00' (U+0000)")]
)
def test_an_unknown_character_is_named(text: str, named: str) -> None:
    with pytest.raises(BadValue) as caught:
        train_chars(["abz"]).encode(text)
    assert f"the character {named} is not among the 3" in str(caught.value)


def test_lone_surrogates_count_as_the_replacement_character() -> None:
    chars = train_chars(["a\ud800"])
    assert chars.encode("\udfff\ufffd") == [1, 1]


def test_text_that_spells_the_special_token_stays_text() -> None:
    chars = train_chars(["<|endoftext|>"])
    assert chars.eot not in chars.encode("<|endoftext|>")
    assert chars.decode([chars.eot]) == "<|endoftext|>"
    with pytest.raises(BadValue, match="token 11 is not in the vocabulary"):
        chars.decode([chars.n_vocab])


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    chars = train_chars(['"quoted" \\ \0\n\u2028🙂'])
    chars.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(loaded, Chars)
    assert loaded.fingerprint == chars.fingerprint
    assert loaded.encode("🙂\0") == chars.encode("🙂\0")
    assert train_chars(["other"]).fingerprint != chars.fingerprint


def test_no_text_gives_no_tokenizer() -> None:
    with pytest.raises(BadValue, match="at least one character"):
        train_chars([])
    with pytest.raises(BadValue, match="each character once"):
        Chars("aa")
