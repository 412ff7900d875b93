from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.corpus.document import Document
from fewshot.dataset.documents import documents_of_shards, sample_of_shards
from fewshot.dataset.shards import TokenShard
from fewshot.dataset.tokenise import build_shards
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars
from fewshot.tokenizer.vocab import Tokenizer

TEXTS = ["the first, of the four", "zwölf 世界 🙂", "a", "one that spells <|endoftext|> itself\n\n"]
TOKENIZERS = [Bytes(), train_chars(TEXTS), train_bpe(TEXTS, n_vocab=260)]


def shards(folder: Path, tokenizer: Tokenizer, **options: int) -> tuple[TokenShard, ...]:
    made = [Document(id=str(i), text=text, source="test") for i, text in enumerate(TEXTS)]
    return build_shards(lambda: iter(made), tokenizer, folder, name="books-train", **options)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "chars", "bpe"])
@pytest.mark.parametrize("n_read", [1, 3, 1 << 20])
def test_every_document_comes_back_whatever_is_read_at_once(tmp_path, set_in_module, tokenizer, n_read):
    set_in_module(documents_of_shards, "READ_TOKENS", n_read)
    documents = list(documents_of_shards(shards(tmp_path, tokenizer), tokenizer))
    assert [document.text for document in documents] == TEXTS
    assert [document.id for document in documents] == [f"{tmp_path}/books-train-00000.bin#{i}" for i in (1, 2, 3, 4)]


def test_documents_of_several_shards_follow_one_another(tmp_path):
    many = shards(tmp_path, Bytes(), max_tokens_per_shard=30)
    assert len(many) == 3
    documents = list(documents_of_shards(many, Bytes()))
    assert [document.text for document in documents] == TEXTS
    assert [document.id[-len("0.bin#1") :] for document in documents] == ["0.bin#1", "1.bin#1", "1.bin#2", "2.bin#1"]


def test_a_foreign_tokenizer_and_a_missing_file_are_refused(tmp_path):
    (shard,) = shards(tmp_path, Bytes())
    with pytest.raises(BadValue, match=r"books-train-00000\.bin was made with another tokenizer"):
        list(documents_of_shards([shard], train_chars(TEXTS)))
    with pytest.raises(BadFile, match=r"gone\.bin is missing"):
        list(documents_of_shards([dataclasses.replace(shard, path=tmp_path / "gone.bin")], Bytes()))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "chars", "bpe"])
def test_a_sample_is_all_of_a_short_text_and_a_part_from_everywhere_of_a_long_one(tmp_path, set_in_module, tokenizer):
    made = shards(tmp_path, tokenizer)
    assert sample_of_shards(made, tokenizer, max_bytes=1000) == [b"".join(text.encode() + b"\0" for text in TEXTS)]
    set_in_module(sample_of_shards, "PIECE_TOKENS", 4)
    pieces = sample_of_shards(made, tokenizer, max_bytes=made[0].n_bytes // 2)
    ids = made[0].tokens().tolist()
    first, last = (
        b"\0".join(tokenizer.decode_bytes(part) for part in split(some, tokenizer.eot)) for some in (ids[:4], ids[-4:])
    )
    assert (pieces[0], pieces[-1]) == (first, last)
    assert len(pieces) == -(-made[0].n_bytes // 2 * len(ids) // made[0].n_bytes // 4)
    assert len(sample_of_shards(made, tokenizer, max_bytes=1)) == 1


def split(ids: list[int], at: int) -> list[list[int]]:
    """The parts between the ids that are `at`."""
    parts: list[list[int]] = [[]]
    for i in ids:
        if i == at:
            parts.append([])
        else:
            parts[-1].append(i)
    return parts
