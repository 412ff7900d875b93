"""The files of a part can be left after any piece and taken up again: the same bytes as without the pause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot.corpus.document import Document
from fewshot.dataset.encode import Piece, pieces_of
from fewshot.dataset.shards import is_whole
from fewshot.dataset.writer import PartState, PartWriter, TextDigest
from fewshot.tokenizer.pieces import pieces

EOT = 60_000
TEXTS = [
    "ab",
    "one two three four",
    "x",
    "zwölf 世界 and so on",
    "a long one of many pieces, longer than a shard",
    "end",
]


@pytest.fixture
def made(set_in_module: Callable[[object, str, object], None]) -> list[Piece]:
    set_in_module(pieces, "PIECE_CHARS", 4)
    return list(pieces_of(("part", Document(id=text, text=text, source="test")) for text in TEXTS))


def writer(folder: Path) -> PartWriter:
    return PartWriter(folder, "part", dtype="uint16", eot=EOT, tokenizer="code points", rule="", max_tokens=30)


def write(to: PartWriter, piece: Piece) -> int:
    return to.write(piece, np.array([ord(c) for c in piece.text], "<u2"))


def finished(to: PartWriter) -> list[tuple[object, bytes]]:
    to.finish()
    return [(shard.sha256, shard.path.read_bytes()) for shard in to.complete_shards()]


def test_documents_are_whole_in_their_shards(tmp_path: Path, made: list[Piece]) -> None:
    whole = writer(tmp_path)
    assert sum(write(whole, piece) for piece in made) == sum(len(text.encode()) for text in TEXTS)
    whole.finish()
    shards = whole.complete_shards()
    assert all(map(is_whole, shards))
    texts = ["".join("|" if i == EOT else chr(i) for i in shard.tokens().tolist()) for shard in shards]
    assert texts == [f"{'|'.join(TEXTS[:3])}|", f"{TEXTS[3]}|", f"{TEXTS[4]}|", f"{TEXTS[5]}|"]
    assert [shard.n_documents for shard in shards] == [3, 1, 1, 1]
    assert [shard.n_bytes for shard in shards] == [
        sum(len(text.encode()) for text in group) for group in (TEXTS[:3], *([text] for text in TEXTS[3:]))
    ]
    assert {shard.source_sha256 for shard in shards} == {whole.digest.hexdigest()}


def test_a_part_is_taken_up_behind_any_piece_wherever_its_writer_was_left(tmp_path: Path, made: list[Piece]) -> None:
    whole = writer(tmp_path / "whole")
    for piece in made:
        write(whole, piece)
    wanted = finished(whole)
    assert len(made) == 16
    for n_saved in range(len(made) + 1):
        for n_lost in range(min(4, len(made) - n_saved + 1)):  # written, but not known to be
            left, state = writer(tmp_path / "part"), PartState()
            left.begin(PartState())
            for number, piece in enumerate(made[: n_saved + n_lost]):
                if number == n_saved:
                    state = left.state()
                write(left, piece)
            state = left.state() if n_lost == 0 else state
            left.flush()
            left.close()
            again = writer(tmp_path / "part")
            assert again.begin(state), (n_saved, n_lost)
            for piece in made[:n_saved]:
                again.digest.update(piece)
            for piece in made[n_saved:]:
                write(again, piece)
            assert finished(again) == wanted, (n_saved, n_lost)


@pytest.mark.parametrize("damage", ["a complete shard", "a complete shard is gone", "the open shard is short"])
def test_damaged_files_are_not_taken_up(tmp_path: Path, made: list[Piece], damage: str) -> None:
    left = writer(tmp_path)
    left.begin(PartState())
    for piece in made[:-1]:
        write(left, piece)
    write(left, made[-1])
    state = left.state()
    left.flush()
    left.cut()
    left.close()
    assert (len(state.shards), state.n_tokens) == (3, 4)
    path = tmp_path / ("part-00003.bin" if damage.startswith("the open") else "part-00001.bin")
    data = path.read_bytes()
    if damage.endswith("gone"):
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage.endswith("short") else bytes([data[0] ^ 1]) + data[1:])
    assert not writer(tmp_path).begin(state)


def test_a_new_beginning_forgets_the_text_of_the_last_one(tmp_path: Path, made: list[Piece]) -> None:
    twice = writer(tmp_path)
    for piece in made[:5]:
        twice.digest.update(piece)
    twice.begin(PartState())
    assert twice.digest.hexdigest() == PartState().text_sha256


def test_the_digest_tells_borders_of_texts_also_where_they_come_in_stretches() -> None:
    def digest(*texts: tuple[str, bool]) -> str:
        digest = TextDigest()
        documents = [Document(id="a", text=text, source="test", more=more) for text, more in texts]
        for piece in pieces_of(("part", document) for document in documents):
            digest.update(piece)
        return digest.hexdigest()

    digests = [
        digest(("ab", False), ("c", False)),
        digest(("a", False), ("bc", False)),
        digest(("abc", False)),
        digest(("ab", True), ("c", False)),
        digest(("ab", True), ("c", False), ("d", False)),
        digest(("ab", True), ("cd", False)),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(("a", True), ("bc", False)) == digest(("ab", True), ("c", False))
