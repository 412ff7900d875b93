"""Byte-level BPE: GPT-2's ids exactly, and trained vocabularies that the peer library reads alike."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.base.errors import BadFile, BadValue
from fewshot.tokenizer.bpe import BPE, bpe_from_json, load_gpt2, train_bpe
from fewshot.tokenizer.load import load_tokenizer

CORPUS = [
    "It was the best of times, it was the worst of times,\n\n  it was the age of wisdom … 1859, 1,859.\n" * 3,
    "don't can't we'll I'd they've he's\tüber naïve café über naïve café 日本語 日本 日本語 🙂🙂🙂 \r\n\r\n    x\n" * 3,
]
SPLITS = ["a", "s", "'s", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "1", "²", "é", "é", "日", "🙂", ".", "_", "\0"]


@pytest.fixture(scope="module")
def gpt2(shared_data: Path) -> BPE:
    return load_gpt2(shared_data / "vocab" / "gpt2")


@pytest.fixture(scope="module")
def trained() -> BPE:
    return train_bpe(CORPUS, n_vocab=330)


@pytest.fixture(scope="module")
def peer(trained: BPE, tmp_path_factory: pytest.TempPathFactory) -> tokenizers.Tokenizer:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    trained.save(path)
    return tokenizers.Tokenizer.from_file(str(path))


def test_gpt2_ids_equal_all_golden_texts(gpt2: BPE, shared_data: Path) -> None:
    golden = (shared_data / "golden" / "gpt2_bpe_golden.jsonl").read_text().splitlines()
    assert len(golden) == 83
    for case in map(json.loads, golden):
        assert gpt2.encode(case["text"]) == case["ids"], case["name"]
        assert gpt2.decode(case["ids"]) == case["text"], case["name"]


def test_gpt2_ids_of_whole_corpora_equal_the_golden_hashes(gpt2: BPE, shared_data: Path) -> None:
    shakespeare = (shared_data / "text" / "tinyshakespeare.txt").read_text()
    cut = int(len(shakespeare) * 0.9)
    lambada = (shared_data / "eval" / "lambada" / "lambada_test.jsonl").read_text().splitlines()
    pieces = {
        "tinyshakespeare_train90": [shakespeare[:cut]],
        "tinyshakespeare_val10": [shakespeare[cut:]],
        "lambada_test_concat": [json.loads(line)["text"] for line in lambada],  # ids, not texts, are joined
    }
    golden = json.loads((shared_data / "golden" / "gpt2_bpe_corpus_hashes.json").read_text())
    assert golden.keys() == pieces.keys()
    for name, wanted in golden.items():
        ids = np.concatenate([gpt2.encode_to_numpy(text) for text in pieces[name]])
        digest = hashlib.sha256(ids.astype("<u2").tobytes()).hexdigest()
        assert (len(ids), digest) == (wanted["tokens"], wanted["sha256_uint16_le"]), name


def test_gpt2_has_its_size_and_its_end_of_text_last(gpt2: BPE) -> None:
    assert (gpt2.n_vocab, gpt2.eot) == (50257, 50256)
    assert gpt2.decode([15496, 50256]) == "Hello<|endoftext|>"


def test_gpt2_saved_and_loaded_is_the_same(gpt2: BPE, tmp_path: Path) -> None:
    gpt2.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == gpt2.fingerprint
    assert loaded.encode(CORPUS[1]) == gpt2.encode(CORPUS[1])


@settings(deadline=None, max_examples=300)
@given(st.text() | st.lists(st.sampled_from(SPLITS), max_size=20).map("".join))
def test_any_text_comes_back(trained: BPE, text: str) -> None:
    ids = trained.encode_to_numpy(text)
    assert trained.decode(ids) == text
    assert ids.dtype == np.uint32
    assert ids.flags.writeable
    assert trained.eot not in ids


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*SPLITS, *CORPUS[0].split(), *CORPUS[1].split()]), max_size=30).map("".join))
def test_trained_ids_equal_the_peer_library(trained: BPE, peer: tokenizers.Tokenizer, text: str) -> None:
    assert trained.encode(text) == peer.encode(text).ids


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("ab \n", max_size=60), max_size=30), st.integers(257, 400), st.text("ab \n", max_size=200))
def test_any_training_gives_a_bpe_that_the_peer_library_reads_alike(texts: list[str], n_vocab: int, text: str) -> None:
    bpe = train_bpe(texts, n_vocab=n_vocab)
    assert bpe.n_vocab <= n_vocab
    assert bpe.eot == bpe.n_vocab - 1
    assert bpe.encode(text) == tokenizers.Tokenizer.from_str(bpe.to_json()).encode(text).ids


@pytest.mark.parametrize("n_blanks", [1, 2, 511, 512, 513, 514, 1024, 1025, 1026])
@pytest.mark.parametrize("ends", ["{}", "a{}", "{}a", "a{}'s", "{}1", "é{}."])
def test_long_blanks_are_split_as_the_peer_library_does(
    trained: BPE, peer: tokenizers.Tokenizer, n_blanks: int, ends: str
) -> None:
    for blanks in (" " * n_blanks, "\n \u3000" * (n_blanks // 3) + "\t"):
        text = ends.format(blanks)
        assert trained.encode(text) == peer.encode(text).ids


def test_merges_follow_frequency_and_ids_follow_merges() -> None:
    # "ab" is the most frequent pair, then "ab"+"c" (4), then "x"+"y" (2); "z" with "w" occurs once: no token
    bpe = train_bpe(["abc abc abc abc", "ab", "xy\nxy", "zw"], n_vocab=1000)
    assert [bpe.decode([i]) for i in range(256, bpe.n_vocab)] == ["ab", "abc", " abc", "xy", "<|endoftext|>"]


def test_n_vocab_counts_all_tokens_and_has_a_floor() -> None:
    assert train_bpe(CORPUS, n_vocab=300).n_vocab == 300
    bytes_only = train_bpe(CORPUS, n_vocab=257)
    assert (bytes_only.n_vocab, bytes_only.eot) == (257, 256)
    assert bytes_only.decode(bytes_only.encode("naïve")) == "naïve"
    with pytest.raises(BadValue, match="n_vocab=256 is too small"):
        train_bpe(CORPUS, n_vocab=256)


def test_training_twice_gives_the_same_fingerprint(trained: BPE) -> None:
    assert train_bpe(iter(CORPUS), n_vocab=330).fingerprint == trained.fingerprint
    assert train_bpe(CORPUS, n_vocab=329).fingerprint != trained.fingerprint


def test_saved_and_loaded_is_the_same_and_the_fingerprint_is_of_the_file(trained: BPE, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "tokenizer.json"
    trained.save(path)
    loaded = load_tokenizer(path)
    assert loaded.fingerprint == trained.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.n_vocab, loaded.eot) == (trained.n_vocab, trained.eot)
    assert loaded.encode(CORPUS[0]) == trained.encode(CORPUS[0])
    assert pickle.loads(pickle.dumps(trained)).encode(CORPUS[0]) == trained.encode(CORPUS[0])


def test_text_that_spells_the_special_token_stays_text(trained: BPE) -> None:
    ids = trained.encode("a<|endoftext|>b")
    assert trained.eot not in ids
    assert trained.decode(ids) == "a<|endoftext|>b"
    assert trained.decode([*ids, trained.eot]) == "a<|endoftext|>b<|endoftext|>"


def test_half_a_character_decodes_to_the_replacement_character(trained: BPE) -> None:
    ids = trained.encode("🙄")
    assert trained.decode_bytes(ids[:1]) == b"\xf0\x9f"
    assert trained.decode(ids[:1]) == "\ufffd"


@pytest.mark.parametrize("wrong", [-1, 330, 2**70])
def test_an_id_outside_the_vocabulary_is_refused(trained: BPE, wrong: int) -> None:
    with pytest.raises(BadValue, match=f"token {wrong} is not in the vocabulary: ids go from 0 to 329"):
        trained.decode([1, wrong])


def test_lone_surrogates_count_as_the_replacement_character(trained: BPE) -> None:
    assert trained.encode("a\ud800b") == trained.encode("a\ufffdb")
    assert train_bpe(["a\ud800b"], n_vocab=300).n_vocab == 257


@pytest.mark.parametrize("word", ["a", "ab", " ", "\n", ".", "7", " \n"])
def test_a_megabyte_without_a_break_takes_seconds(trained: BPE, word: str) -> None:
    text = word * (1_000_000 // len(word)) + "x"
    start = time.perf_counter()
    ids = trained.encode_to_numpy(text)
    retrained = train_bpe([text], n_vocab=270)
    assert time.perf_counter() - start < 20
    assert trained._join(ids.tolist()).decode() == text
    assert retrained.n_vocab > 260


def test_merges_with_the_line_ends_of_windows_are_read(trained: BPE, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(trained._ids))
    lines = ["#version: 0.2", *map(" ".join, trained._merges), ""]
    for end in ("\n", "\r\n"):
        (tmp_path / "merges.txt").write_bytes(end.join(lines).encode())
        assert load_gpt2(tmp_path).fingerprint == trained.fingerprint


def test_an_error_in_the_stream_of_texts_comes_through() -> None:
    def texts():
        yield "abc"
        raise BadFile("the disk is gone")

    with pytest.raises(BadFile, match="the disk is gone"):
        train_bpe(texts(), n_vocab=300)


def peers_own(special_tokens: list[str]) -> dict:
    """A vocabulary that the peer library trains in its usual way, special tokens first."""
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330, special_tokens=special_tokens, initial_alphabet=alphabet, show_progress=False
    )
    peer.train_from_iterator(CORPUS, trainer)
    return json.loads(peer.to_str())


def test_a_vocabulary_trained_by_the_peer_library_with_its_special_token_first_is_read() -> None:
    value = peers_own(["<|endoftext|>"])
    bpe = bpe_from_json(value)
    assert (bpe.eot, bpe.n_vocab) == (0, 330)
    assert bpe.encode(CORPUS[1]) == tokenizers.Tokenizer.from_str(json.dumps(value)).encode(CORPUS[1]).ids
    value["model"]["merges"] = [" ".join(pair) for pair in value["model"]["merges"]]  # the older spelling
    assert bpe_from_json(value).fingerprint == bpe.fingerprint


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v["pre_tokenizer"].update(add_prefix_space=True), "pre_tokenizer has add_prefix_space=True"),
        (lambda v: v.update(pre_tokenizer=None), "pre_tokenizer has type=None"),
        (lambda v: v.update(normalizer={"type": "NFC"}), "normalizer="),
        (lambda v: v.update(post_processor={"type": "BertProcessing"}), "post_processor has type='BertProcessing'"),
        (lambda v: v["model"].update(type="WordPiece"), "model has type='WordPiece'"),
        (lambda v: v.update(model=[1]), "model must hold names and values"),
        (lambda v: v["model"]["vocab"].update(zq=330), "the vocabulary must hold the 256 bytes"),
        (lambda v: v["model"]["vocab"].update(a=329), "each once"),
        (lambda v: v["model"]["vocab"].update(a="1"), "whole numbers"),
        (lambda v: v["model"]["merges"].reverse(), "in the order of the merges"),
        (lambda v: v["model"]["merges"].append(["a"]), "each merge must be a pair"),
        (
            lambda v: v["added_tokens"].append({"id": 330, "content": "<pad>"}),
            "special tokens are <|endoftext|>, <pad>",
        ),
    ],
)
def test_a_vocabulary_that_would_give_other_ids_is_refused(change, reason: str) -> None:
    value = peers_own(["<|endoftext|>"])
    change(value)
    with pytest.raises(BadValue) as caught:
        bpe_from_json(value)
    assert reason in str(caught.value)
