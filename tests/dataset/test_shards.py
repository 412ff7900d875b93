"""Files of tokens and their index say what they hold, and damage is seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.corpus.document import Document
from fewshot.dataset.shards import is_whole, load_shards
from fewshot.dataset.tokenise import build_shards

TEXTS = ["first", "zwölf 世界", "", "the third one"]


def source(texts: list[str]) -> Callable[[], Iterator[Document]]:
    return lambda: (Document(id=str(i), text=text, source="test") for i, text in enumerate(texts))


@pytest.mark.parametrize(("n_vocab", "dtype", "itemsize"), [(65536, "uint16", 2), (65537, "uint32", 4)])
def test_ids_take_two_bytes_as_long_as_the_vocabulary_fits(
    tmp_path: Path, code_points: Callable, n_vocab: int, dtype: str, itemsize: int
) -> None:
    (shard,) = build_shards(source(["ab"]), code_points(n_vocab=n_vocab), tmp_path, name="train")
    assert shard.dtype == dtype
    little_endian = b"".join(i.to_bytes(itemsize, "little") for i in (97, 98, n_vocab - 1))
    assert shard.path.read_bytes() == little_endian


def test_one_changed_bit_is_seen_when_shards_are_loaded_or_built_again(tmp_path: Path, code_points: Callable) -> None:
    (shard,) = build_shards(source(TEXTS), code_points(), tmp_path, name="train")
    assert load_shards(tmp_path, name="train") == (shard,)
    data = bytearray(shard.path.read_bytes())
    data[3] ^= 1
    shard.path.write_bytes(data)
    assert not is_whole(shard)
    with pytest.raises(BadFile, match=r"train-00000.bin is missing or differs from its recorded sha256"):
        load_shards(tmp_path, name="train")
    build_shards(source(TEXTS), code_points(), tmp_path, name="train")
    assert load_shards(tmp_path, name="train") == (shard,)


def test_missing_token_files_and_indexes_say_so(tmp_path: Path, code_points: Callable) -> None:
    (shard,) = build_shards(source(TEXTS), code_points(), tmp_path, name="train")
    gone = dataclasses.replace(shard, path=tmp_path / "gone.bin")
    assert not is_whole(gone)
    with pytest.raises(BadFile, match=r"gone.bin is missing or not 29 tokens long"):
        gone.tokens()
    with pytest.raises(BadFile, match=r"other.json is missing or damaged: start a new run"):
        load_shards(tmp_path, name="other")


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "uint12"},
        {"dtype": "float64"},
        {"dtype": 3},
        {"n_tokens": -1},
        {"n_bytes": None},
        {"eot": "a"},
        {"x": 1},
    ],
)
def test_an_index_with_wrong_values_is_damaged(tmp_path: Path, code_points: Callable, change: dict) -> None:
    build_shards(source(TEXTS), code_points(), tmp_path, name="train")
    index = json.loads((tmp_path / "train.json").read_text())
    index["shards"][0].update(change)
    (tmp_path / "train.json").write_text(json.dumps(index))
    with pytest.raises(BadFile, match=r"train.json is missing or damaged: start a new run"):
        load_shards(tmp_path, name="train")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"shards": ' + "[" * 600 + "]" * 600 + "}", '{"shards": [1' + "0" * 5000 + "]}"]
)
def test_an_index_that_is_a_bomb_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(BadFile, match=r"train.json is missing or damaged: start a new run"):
        load_shards(tmp_path, name="train")
