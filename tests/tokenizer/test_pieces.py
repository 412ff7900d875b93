"""Texts in pieces: bounded, the whole text again, and the same words and tokens as in one piece."""

from __future__ import annotations

from itertools import chain

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.corpus.document import Document
from fewshot.dataset.tokenise import build_shards
from fewshot.tokenizer.bpe import LONG_WORD, MIN_PAIR_COUNT, _short_words, train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars
from fewshot.tokenizer.pieces import PIECE_CHARS, pieces

ANY = st.text(alphabet="ab1.' \n\t\r\u00a0\u3000\u2028\x1c\x85é世🙂\u0301", max_size=60)
SPLITTER = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)

N = 300_000  # characters
DOCUMENTS = {
    "words": "the old river bends under a stone bridge ",
    "lines": "the old river bends.\n",
    "Windows' lines": "the old river bends.\r\n\r\n",
    "tabs": "the\told\triver\t",
    "no-break spaces": "the\u00a0old\u00a0river\u00a0",
    "ideographic spaces": "世界\u3000日本\u3000",
    "line separators": "the\u2028old\u2028",
    "indented code": "        if x:\n            y = 1\n",
    "contractions": "it's they're I'll ",
    "accents": "Thé été à côté ",
    "emoji": "🙂 🙂🙂 ",
    "long words": "x" * 5000 + " ",
    "long blanks": "x" + " " * 5000,
    "numbers": "3.14159 2.71828 ",
    "JSON": '{"a": [1, 2, 3]}',
}


@settings(max_examples=300, deadline=None)
@given(text=ANY, piece_chars=st.integers(1, 8))
def test_pieces_are_the_text_and_have_its_words(text: str, piece_chars: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{pieces.__module__}.PIECE_CHARS", piece_chars)
        cut = list(pieces(text))
    assert "".join(cut) == text
    assert all(cut)
    in_pieces = chain.from_iterable(SPLITTER.pre_tokenize_str(piece) for piece in cut)
    assert [word for word, _ in in_pieces] == [word for word, _ in SPLITTER.pre_tokenize_str(text)]


@settings(max_examples=200, deadline=None)
@given(text=ANY, piece_chars=st.integers(1, 8))
def test_pieces_encode_to_the_tokens_of_the_text(text: str, piece_chars: int) -> None:
    bpe = train_bpe(["the cat's hat, 世界 世界 11 11..  \n\n  ab ab"] * 3, n_vocab=290)
    for tokenizer in (bpe, Bytes(), train_chars([text or "x"])):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{pieces.__module__}.PIECE_CHARS", piece_chars)
            ids = [i for piece in pieces(text) for i in tokenizer.encode(piece)]
        assert ids == tokenizer.encode(text)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_training_and_encoding_never_see_more_than_a_piece_of_a_document(kind: str, tmp_path) -> None:
    text = DOCUMENTS[kind] * (N // len(DOCUMENTS[kind]))
    seen = list(_short_words([text]))
    assert "".join(seen) == text
    assert max(map(len, seen)) < 1.25 * PIECE_CHARS
    encoded: list[int] = []

    class Spy:
        n_vocab, eot, fingerprint = 257, 256, "spy"

        def encode_to_numpy(self, piece: str):
            encoded.append(len(piece))
            return Bytes().encode_to_numpy(piece)

    document = Document(id="d", text=text, source="test")
    (shard,) = build_shards(lambda: iter([document]), Spy(), tmp_path, name="x")  # type: ignore[arg-type]
    assert max(encoded) < 1.25 * PIECE_CHARS
    assert bytes(shard.tokens()[:-1].astype("uint8")) == text.encode()
    assert (shard.n_documents, shard.n_bytes) == (1, len(text.encode()))


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_bpe_is_the_one_of_whole_documents(kind: str) -> None:
    text = DOCUMENTS[kind] * (100_000 // len(DOCUMENTS[kind])) + "and so it ends"
    whole = tokenizers.Tokenizer(tokenizers.models.BPE())
    whole.pre_tokenizer = SPLITTER
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=299,
        min_frequency=MIN_PAIR_COUNT,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    whole.train_from_iterator(LONG_WORD.split(text), trainer)
    ours = train_bpe([text], n_vocab=300)
    assert ours._ids.items() - whole.get_vocab().items() == {("<|endoftext|>", ours.eot)}


def test_text_without_a_blank_is_one_piece_and_long_words_of_it_are_cut_for_training() -> None:
    text = "ACGT" * 100_000
    assert list(pieces(text)) == [text]
    assert max(map(len, _short_words([text]))) == 1000


def test_no_text_has_no_piece() -> None:
    assert list(pieces("")) == []


def test_a_piece_is_cut_no_further() -> None:
    text = "the old river " * 20_000
    assert [list(pieces(piece)) for piece in pieces(text)] == [[piece] for piece in pieces(text)]
