"""A long file in stretches is the same text with the same words, in bounded memory; what is damaged is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.base.files import read_text
from fewshot.corpus.sources import read_documents
from fewshot.corpus.stretches import stretches_of
from fewshot.tokenizer.bpe import train_bpe

SetInModule = Callable[[object, str, object], None]
TEXTS = {
    "words": "It was a dark  night, said he.\n\nAnd so on, and so forth. " * 20,
    "bytes of several in a character": "Größe 世界 🙂 naïve\u3000ende\u00a0no " * 30,
    "a byte order mark": "\ufeffThé end, and more of it " * 10,
    "no place to cut": "x" * 500,
    "blanks at both ends": "   begin" + " " * 100 + "end   ",
    "blanks that are none to all": "a\x1cb\x85c \x1f d " * 40,
    "shorter than a stretch": "ab",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("n_chars", [1, 7, 64])
def test_stretches_are_the_text_with_its_tokens(
    tmp_path: Path, set_in_module: SetInModule, text: str, n_chars: int
) -> None:
    set_in_module(stretches_of, "STRETCH_CHARS", n_chars)
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    stretches, more = zip(*stretches_of(path), strict=True)
    whole = read_text(path)
    assert "".join(stretches) == whole
    assert list(more) == [True] * (len(more) - 1) + [False]
    tokenizer = train_bpe(TEXTS.values(), n_vocab=400)
    assert [i for stretch in stretches for i in tokenizer.encode(stretch)] == tokenizer.encode(whole)


def test_stretches_are_as_long_as_they_should_be(tmp_path: Path, set_in_module: SetInModule) -> None:
    set_in_module(stretches_of, "STRETCH_CHARS", 50)
    path = tmp_path / "a.txt"
    path.write_text("seven c " * 100)
    lengths = [len(text) for text, _ in stretches_of(path)]
    assert sum(lengths) == 800
    assert all(50 <= length < 50 + 8 for length in lengths[:-1])


def test_a_text_of_blanks_gives_no_stretch(tmp_path: Path, set_in_module: SetInModule) -> None:
    set_in_module(stretches_of, "STRETCH_CHARS", 10)
    (tmp_path / "a.txt").write_text(" \n" * 40)
    assert list(stretches_of(tmp_path / "a.txt")) == []


DAMAGE = {
    "a byte that is no UTF-8": b"line one\nline two\nli\xffne three\n" + b"more and more\n" * 9,
    "a NUL": b"line one\nline two\nli\0ne three\n" + b"more and more\n" * 9,
    "an end inside of a character": b"line one\nline two\n" + "世".encode()[:2],
    "UTF-16": "line one\nline two".encode("utf-16"),
}


@pytest.mark.parametrize("n_chars", [2, 4, 30])
@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_text_is_refused_as_when_it_is_read_whole(
    tmp_path: Path, set_in_module: SetInModule, data: bytes, n_chars: int
) -> None:
    set_in_module(stretches_of, "STRETCH_CHARS", n_chars)
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(BadFile) as whole:
        read_text(path)
    given: list[tuple[str, bool]] = []
    with pytest.raises(BadFile) as refused:
        given.extend(stretches_of(path))
    assert str(refused.value) == str(whole.value)
    assert data.decode("utf-8", "replace").startswith("".join(text for text, _ in given))
    assert not given or not given[-1][1]  # nothing follows what was good


def test_a_disk_that_fails_ends_the_text_before(tmp_path: Path, set_in_module: SetInModule) -> None:
    def blocks(path: Path) -> Iterator[str]:
        yield from ["one two", " three", " four"]
        raise OSError("bad sector")

    set_in_module(stretches_of, "STRETCH_CHARS", 3)
    set_in_module(stretches_of, "_blocks_of", blocks)
    given: list[tuple[str, bool]] = []
    with pytest.raises(OSError, match="bad sector"):
        given.extend(stretches_of(tmp_path))
    assert given == [("one", True), (" two", True), (" three", False)]


def test_a_long_file_is_never_held(tmp_path: Path, set_in_module: SetInModule) -> None:
    n_chars = 100_000
    set_in_module(stretches_of, "STRETCH_CHARS", n_chars)
    path = tmp_path / "a.txt"
    path.write_text("It was a dark night. " * (n_chars * 40 // 21))
    tracemalloc.start()
    try:
        n_stretches = sum(1 for _ in stretches_of(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_stretches == 40
    assert peak < 8 * n_chars


@pytest.mark.parametrize("in_stretches", [True, False])
def test_a_long_file_comes_in_stretches_where_that_is_asked_for(
    tmp_path: Path, set_in_module: SetInModule, in_stretches: bool
) -> None:
    set_in_module(stretches_of, "STRETCH_CHARS", 8)
    set_in_module(read_documents, "LONG_BYTES", 20)
    (tmp_path / "a.txt").write_text("exactly twenty bytes")
    (tmp_path / "b.txt").write_text("twenty bytes and more of it")
    documents = list(read_documents([tmp_path], in_stretches=in_stretches))
    assert [(d.key, d.text, d.more) for d in documents] == [
        ("a.txt", "exactly twenty bytes", False),
        *(
            [("b.txt", "twenty bytes", True), ("b.txt", " and more", True), ("b.txt", " of it", False)]
            if in_stretches
            else [("b.txt", "twenty bytes and more of it", False)]
        ),
    ]
    assert {d.id for d in documents} == {str(tmp_path / "a.txt"), str(tmp_path / "b.txt")}
