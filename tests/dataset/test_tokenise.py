"""Tokens are made once, reused while nothing changed, and gone on with where making them was stopped or killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.corpus.document import Document
from fewshot.dataset.shards import is_whole, load_shards
from fewshot.dataset.tokenise import build_shards
from fewshot.tokenizer.pieces import pieces

TEXTS = ["first", "zwölf 世界", "", "the third one"]


class Source:
    """Documents that count how often they are read."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.n_reads = 0

    def __call__(self) -> Iterator[Document]:
        self.n_reads += 1
        return (Document(id=str(i), text=text, source="test") for i, text in enumerate(self.texts))


class Untouchable:
    """Stands for a tokenizer that must not be asked to encode."""

    def __init__(self, like) -> None:
        self.n_vocab, self.eot, self.fingerprint = like.n_vocab, like.eot, like.fingerprint


def ids(texts: list[str], tokenizer) -> list[int]:
    return [i for text in texts if text for i in [*tokenizer.encode(text), tokenizer.eot]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_each_document_is_followed_by_the_end_of_text_token(tmp_path: Path, code_points: Callable) -> None:
    (shard,) = build_shards(Source(TEXTS), code_points(), tmp_path, name="train")
    assert shard.tokens().tolist() == ids(TEXTS, code_points())
    assert (shard.n_tokens, shard.n_documents) == (5 + 1 + 8 + 1 + 13 + 1, 3)
    assert shard.n_bytes == len("".join(TEXTS).encode()) == 5 + 13 + 13
    assert not shard.tokens().flags.writeable
    assert isinstance(shard.tokens(), np.memmap)
    assert is_whole(shard)


def test_shards_together_hold_the_same_tokens_as_one(tmp_path: Path, code_points: Callable) -> None:
    texts = ["a" * n for n in (4, 3, 11, 1, 1, 1, 20)]
    shards = build_shards(Source(texts), code_points(), tmp_path, name="train", max_tokens_per_shard=9)
    assert [shard.n_tokens for shard in shards] == [5 + 4, 12, 2 + 2 + 2, 21]  # a document is never cut
    assert np.concatenate([shard.tokens() for shard in shards]).tolist() == ids(texts, code_points())
    assert sum(shard.n_documents for shard in shards) == 7
    assert sum(shard.n_bytes for shard in shards) == 41
    assert len({shard.source_sha256 for shard in shards}) == 1


def test_second_call_reuses_the_tokens_and_reads_the_text_once(tmp_path: Path, code_points: Callable, capsys) -> None:
    first = build_shards(Source(TEXTS), code_points(), tmp_path, name="train", max_tokens_per_shard=9)
    source = Source(TEXTS)
    assert build_shards(source, Untouchable(code_points()), tmp_path, name="train") == first
    assert source.n_reads == 1
    assert capsys.readouterr().err == ""


def test_a_moved_folder_is_still_reused(tmp_path: Path, code_points: Callable) -> None:
    build_shards(Source(TEXTS), code_points(), tmp_path / "a", name="train")
    (tmp_path / "a").rename(tmp_path / "b")
    (shard,) = build_shards(Source(TEXTS), Untouchable(code_points()), tmp_path / "b", name="train")
    assert shard.path == tmp_path / "b" / "train-00000.bin"
    assert is_whole(shard)


@pytest.mark.parametrize(
    "changed",
    [["first", "zwölf 世界", "the third onE"], ["firstz", "wölf 世界", "the third one"], ["the third one", *TEXTS[:2]]],
    ids=["a letter", "a border", "the order"],
)
def test_changed_text_is_tokenised_again(tmp_path: Path, code_points: Callable, capsys, changed: list[str]) -> None:
    build_shards(Source(TEXTS), code_points(), tmp_path, name="train")
    (shard,) = build_shards(Source(changed), code_points(), tmp_path, name="train")
    assert shard.tokens().tolist() == ids(changed, code_points())
    assert capsys.readouterr().err == "train: tokenising again: text changed\n"
    assert (shard,) == build_shards(Source(changed), Untouchable(code_points()), tmp_path, name="train")


def test_changed_tokenizer_tokenises_again(tmp_path: Path, code_points: Callable, capsys) -> None:
    build_shards(Source(TEXTS), code_points(), tmp_path, name="train")
    other = code_points(n_vocab=70_000, fingerprint="other")
    (shard,) = build_shards(Source(TEXTS), other, tmp_path, name="train")
    assert shard.tokens().tolist() == ids(TEXTS, other)
    assert shard.tokenizer == "other"
    assert capsys.readouterr().err == "train: tokenising again: tokenizer changed\n"


@pytest.mark.parametrize("damage", ["short", "missing", "index cut", "index of another kind"])
def test_damaged_files_are_made_again(tmp_path: Path, code_points: Callable, capsys, damage: str) -> None:
    (first,) = build_shards(Source(TEXTS), code_points(), tmp_path, name="train")
    whole = contents(tmp_path)
    match damage:
        case "short":
            first.path.write_bytes(first.path.read_bytes()[:-2])
        case "missing":
            first.path.unlink()
        case "index cut":
            (tmp_path / "train.json").write_bytes(whole["train.json"][:100])
        case _:
            (tmp_path / "train.json").write_text(json.dumps({"shards": [{"path": "train-00000.bin"}]}))
    assert build_shards(Source(TEXTS), code_points(), tmp_path, name="train") == (first,)
    assert contents(tmp_path) == whole
    assert capsys.readouterr().err == "train: tokenising again: file damaged\n"


@pytest.mark.parametrize("before", ["nothing", "an older build"])
def test_an_interrupted_build_leaves_no_index_and_no_file_that_nothing_says_can_be_trusted(
    tmp_path: Path, code_points: Callable, before: str
) -> None:
    texts = ["abc", "defg", "hijkl"]

    def interrupted() -> Iterator[Document]:
        yield from list(Source(texts)())[:2]
        raise KeyboardInterrupt

    tokenizer = code_points()
    if before == "an older build":
        build_shards(Source(texts), code_points(fingerprint="older"), tmp_path, name="train", max_tokens_per_shard=5)
    with pytest.raises(KeyboardInterrupt):
        build_shards(interrupted, tokenizer, tmp_path, name="train", max_tokens_per_shard=5)
    assert contents(tmp_path) == {}
    shards = build_shards(Source(texts), tokenizer, tmp_path, name="train", max_tokens_per_shard=5)
    assert np.concatenate([shard.tokens() for shard in shards]).tolist() == ids(texts, tokenizer)


def test_a_smaller_build_removes_the_shards_of_the_larger_one_and_no_others(
    tmp_path: Path, code_points: Callable
) -> None:
    build_shards(Source(["ab"] * 5), code_points(), tmp_path, name="a", max_tokens_per_shard=3)
    build_shards(Source(["ab"] * 2), code_points(), tmp_path, name="a-b", max_tokens_per_shard=3)
    build_shards(Source(["ab"]), code_points(), tmp_path, name="a")
    build_shards(Source(["ab"]), code_points(), tmp_path, name="?")
    files = ["?-00000.bin", "?.json", "a-00000.bin", "a-b-00000.bin", "a-b-00001.bin", "a-b.json", "a.json"]
    assert list(contents(tmp_path)) == files


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_at_all_is_an_error(tmp_path: Path, code_points: Callable, texts: list[str]) -> None:
    with pytest.raises(BadFile, match="val: there is no text to tokenise"):
        build_shards(Source(texts), code_points(), tmp_path, name="val")
    assert contents(tmp_path) == {}


def test_a_shard_of_no_tokens_is_refused(tmp_path: Path, code_points: Callable) -> None:
    with pytest.raises(BadValue, match="max_tokens_per_shard is 0"):
        build_shards(Source(TEXTS), code_points(), tmp_path, name="train", max_tokens_per_shard=0)


def test_progress_counts_bytes_up_to_all_of_them(tmp_path: Path, code_points: Callable) -> None:
    seen: list[int] = []
    build_shards(Source(TEXTS), code_points(), tmp_path, name="train", on_progress=seen.append)
    assert seen == [5, 5 + 13, 5 + 13 + 13]


def test_shards_know_the_rule_by_which_their_documents_were_chosen(
    tmp_path: Path, code_points: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    build_shards(Source(TEXTS), code_points(), tmp_path, name="val", rule="document 1")
    (shard,) = build_shards(Source(TEXTS), Untouchable(code_points()), tmp_path, name="val", rule="document 1")
    assert shard.rule == "document 1"
    (shard,) = build_shards(Source(TEXTS), code_points(), tmp_path, name="val", rule="document 2")
    assert shard.rule == "document 2"
    assert "tokenising again: validation text chosen by another rule" in capsys.readouterr().err
    assert load_shards(tmp_path, name="val") == (shard,)


def test_a_long_document_is_tokenised_in_pieces(
    tmp_path: Path, code_points: Callable, set_in_module: Callable[[object, str, object], None]
) -> None:
    set_in_module(pieces, "PIECE_CHARS", 4)
    seen: list[int] = []
    (shard,) = build_shards(Source(TEXTS), code_points(), tmp_path, name="train", on_progress=seen.append)
    assert shard.tokens().tolist() == ids(TEXTS, code_points())
    assert seen == [5, 5 + 6, 5 + 13, 5 + 13 + 9, 5 + 13 + 13]
