"""One byte, one token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.load import load_tokenizer


def test_ids_are_the_utf8_bytes_and_end_of_text_is_last() -> None:
    assert Bytes().encode("Aé\0☃") == [0x41, 0xC3, 0xA9, 0x00, 0xE2, 0x98, 0x83]
    assert (Bytes().n_vocab, Bytes().eot) == (257, 256)
    assert Bytes().encode("") == []
    assert Bytes().encode_to_numpy("ab").dtype == np.uint32


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert Bytes().decode(Bytes().encode(text)) == text


def test_half_a_character_is_shown_as_the_replacement_character_and_kept_as_a_byte() -> None:
    assert Bytes().decode([0xC3]) == "\ufffd"
    assert Bytes().decode_bytes([0xC3, 0xA9]) == "é".encode()


def test_lone_surrogates_count_as_the_replacement_character() -> None:
    assert Bytes().encode("a\ud800") == [0x61, 0xEF, 0xBF, 0xBD]


def test_text_that_spells_the_special_token_stays_text() -> None:
    assert Bytes().eot not in Bytes().encode("<|endoftext|>")
    assert Bytes().decode([0x61, Bytes().eot]) == "a<|endoftext|>"


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    Bytes().save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(loaded, Bytes)
    assert loaded.fingerprint == Bytes().fingerprint
