"""Tokenizers of others: every token is decoded as the library decodes it, whatever its vocabulary is made of."""

from __future__ import annotations

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.models.transformers_tokenizer import TransformersTokenizer
from fewshot.generate.beam import beam_search
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.chars import train_chars

transformers = pytest.importorskip("transformers")

import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers  # noqa: E402

LETTERS = "abcdefghijklmnopqrstuvwxyz."
TEXT = "the farmer sat there. a farmer."


def fast(model, *, pre=None, decoder=None, normalizer=None, **names):
    backend = Tokenizer(model)
    if pre is not None:
        backend.pre_tokenizer = pre
    if decoder is not None:
        backend.decoder = decoder
    if normalizer is not None:
        backend.normalizer = normalizer
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", **names)


def numbered(*tokens: str) -> dict[str, int]:
    return {token: i for i, token in enumerate(dict.fromkeys(["</s>", "[UNK]", *tokens]))}


WORDS = ["the", "farm", "##er", "sat", "##re", "a", "."]


def word_piece(**how):
    return fast(
        models.WordPiece(numbered(*WORDS, *LETTERS, *[f"##{c}" for c in LETTERS]), unk_token="[UNK]"),
        pre=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(**how),
        unk_token="[UNK]",
    )


def word_piece_of_another_sign():
    vocab = numbered(*WORDS[:2], "@@er", "sat", "@@re", "a", ".", *LETTERS, *[f"@@{c}" for c in LETTERS])
    return fast(
        models.WordPiece(vocab, unk_token="[UNK]", continuing_subword_prefix="@@"),
        pre=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(prefix="@@"),
        unk_token="[UNK]",
    )


def with_end_signs(sign: str):
    merges = [("t", "h"), ("th", f"e{sign}"), ("f", "a")]
    tokens = [*LETTERS, *[c + sign for c in LETTERS], *["".join(pair) for pair in merges]]
    return fast(
        models.BPE(numbered(*tokens), merges, end_of_word_suffix=sign, unk_token="[UNK]"),
        pre=pre_tokenizers.Whitespace(),
        decoder=decoders.BPEDecoder(suffix=sign),
    )


def sentence_piece(*, fallback: bool):
    pieces = ["▁", *LETTERS, "▁the", "▁f", "er", *([f"<0x{i:02X}>" for i in range(256)] if fallback else [])]
    plain = [decoders.Metaspace()]
    llama = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return fast(
        models.Unigram([("</s>", 0.0), *((piece, -1.0) for piece in pieces)], unk_id=0, byte_fallback=fallback),
        pre=pre_tokenizers.Metaspace(),
        decoder=decoders.Sequence(llama if fallback else plain),
    )


def byte_level(**names):
    backend = Tokenizer.from_str(train_bpe([TEXT * 20], n_vocab=280).to_json())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", **names)


def words():
    return fast(
        models.WordLevel(numbered("the", "farmer", "sat", "there", "a", "."), unk_token="[UNK]"),
        pre=pre_tokenizers.BertPreTokenizer(),
    )


def upside_down():
    """A decoder that replaces a letter of what is decoded."""
    return fast(
        models.WordLevel(numbered("the", "farmer", "sat", "there", "a", "."), unk_token="[UNK]"),
        pre=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.Replace("farm", "FARM"),
    )


def characters():
    """As a run of characters is written for transformers; none of the usual words is in it."""
    backend = Tokenizer.from_str(train_chars(["Bcd efg!\n"]).to_library_json())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def with_added_words():
    tokenizer = byte_level()
    tokenizer.add_tokens(["<farmer>", "two words"])
    return tokenizer


def with_a_hole():
    backend = Tokenizer(models.WordLevel({"</s>": 0, "the": 1, "farmer": 7, "a": 9}, unk_token="</s>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def with_silent_tokens():
    """As Llama 3's: reserved tokens that are special, and no one's."""
    tokenizer = byte_level()
    tokenizer.add_tokens([f"<|reserved_{i}|>" for i in range(3)], special_tokens=True)
    return tokenizer


NEIGHBOURS = {
    "WordPiece": (word_piece, TEXT),
    "WordPiece without clean-up": (lambda: word_piece(cleanup=False), TEXT),
    "WordPiece of another sign": (word_piece_of_another_sign, TEXT),
    "words that end in </w>": (lambda: with_end_signs("</w>"), TEXT),
    "words that end in _": (lambda: with_end_signs("_"), TEXT),
    "SentencePiece": (lambda: sentence_piece(fallback=False), TEXT),
    "SentencePiece with bytes": (lambda: sentence_piece(fallback=True), TEXT + " né 日本"),
    "byte-level": (byte_level, TEXT + " né 日本"),
    "byte-level with added words": (with_added_words, "the <farmer> says two words"),
    "byte-level with reserved tokens": (with_silent_tokens, TEXT),
    "byte-level that cleans up": (lambda: byte_level(clean_up_tokenization_spaces=True), "the farmer sat there."),
    "characters": (characters, "B fed!\n\n"),
    "whole words": (words, TEXT),
    "a decoder that replaces": (upside_down, TEXT),
    "ids with holes": (with_a_hole, "the farmer a"),
}


NEED_THE_WHOLE = {"WordPiece", "WordPiece without clean-up", "WordPiece of another sign", "words that end in </w>",
                  "words that end in _", "whole words", "a decoder that replaces", "ids with holes"}  # fmt: skip


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_every_tokenizer_decodes_as_the_library_does(name):
    make, text = NEIGHBOURS[name]
    library = make()
    ours = TransformersTokenizer(library)
    ids = ours.encode(text)
    assert ours.decode(ids).removeprefix(" ") == library.decode(ids, skip_special_tokens=True)
    assert "##" not in ours.decode(ids)
    assert "▁" not in ours.decode(ids)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_what_is_written_token_by_token_is_what_the_library_decodes(name):
    """A model that is sure of every next token, written on by beam search."""
    make, text = NEIGHBOURS[name]
    library = make()
    ours = TransformersTokenizer(library)
    ids = ours.encode(text)

    class Sure:
        def start(self, prompts):
            self.at = -1
            return self.go_on([0], [0])

        def go_on(self, rows, tokens):
            self.at += 1
            said = torch.full((1, ours.n_vocab), -30.0)
            said[0, ([*ids, ours.eot])[self.at]] = 30.0
            return said

    (written,) = beam_search(Sure(), ours, [[ours.eot]], n_ctx=500, max_tokens=400, beams=1)
    assert list(written.tokens) == [*ids, ours.eot]
    assert written.text.removeprefix(" ") == library.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_pieces_that_stand_alone_give_the_whole_text_one_after_the_other(name):
    make, text = NEIGHBOURS[name]
    ours = TransformersTokenizer(make())
    assert ours.pieces_stand_alone == (name not in NEED_THE_WHOLE)
    ids = ours.encode(text)
    if ours.pieces_stand_alone:
        assert b"".join(ours.decode_bytes([i]) for i in ids) == ours.decode_bytes(ids)


def test_bytes_of_a_cut_character_are_kept_where_tokens_are_bytes():
    for make in (byte_level, lambda: sentence_piece(fallback=True)):
        ours = TransformersTokenizer(make())
        ids = ours.encode("日本")
        assert b"".join(ours.decode_bytes([i]) for i in ids).strip() == "日本".encode()


def test_every_id_of_a_vocabulary_with_holes_can_be_written_and_holes_write_nothing():
    ours = TransformersTokenizer(with_a_hole())
    assert ours.n_vocab == 10
    assert ours.decode_bytes([9, 4, 1]) == b" a the"


def test_a_tokenizer_in_pure_python_is_decoded_by_the_library(tmp_path):
    (tmp_path / "vocab.json").write_text('{"t@@": 0, "he</w>": 1, "a</w>": 2, "<unk>": 3, "the": 4, "a": 5, "h@@": 6}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    library = transformers.CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), eos_token="the")
    ours = TransformersTokenizer(library)
    ids = [5, 0, 6, 5]
    assert ours.decode(ids).strip() == library.decode(ids, skip_special_tokens=True)
    assert TransformersTokenizer(library).to_json() == ours.to_json()
    assert "a</w>" in ours.to_json()


def test_a_character_that_a_vocabulary_does_not_know_is_one_line():
    with pytest.raises(BadValue, match="its tokenizer cannot encode 'Bx'"):
        TransformersTokenizer(characters()).encode("Bx")


def test_lone_surrogates_count_as_unknown_characters():
    ours = TransformersTokenizer(byte_level())
    assert ours.decode(ours.encode("a \ud83d b")) == "a \ufffd b"


def test_a_tokenizer_without_tokens_or_without_an_end_is_refused():
    empty = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    with pytest.raises(BadFile, match="holds no tokenizer"):
        TransformersTokenizer(empty)
    plain = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    with pytest.raises(BadValue, match="no token that ends a text"):
        TransformersTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=plain))


def test_a_decoder_that_rewrites_what_stands_before_is_refused():
    backwards = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "b": 2}, unk_token="</s>"))
    backwards.pre_tokenizer, backwards.normalizer = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    library = transformers.PreTrainedTokenizerFast(tokenizer_object=backwards, eos_token="</s>")
    library.decode = lambda ids, **how: "".join("·ab"[i] for i in reversed(list(ids)))
    with pytest.raises(BadFile, match="its decoder changes what stands before a token"):
        TransformersTokenizer(library)
