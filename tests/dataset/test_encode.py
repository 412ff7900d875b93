"""Pieces keep their order, their documents and their ids, however many threads encode them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fewshot.corpus.document import Document
from fewshot.dataset.encode import Piece, encoded, pieces_of
from fewshot.tokenizer.pieces import pieces

SetInModule = Callable[[object, str, object], None]
DTYPE = np.dtype("uint16")


def document(text: str, *, more: bool = False) -> Document:
    return Document(id="a", text=text, source="test", more=more)


def some_pieces(n: int) -> Iterator[Piece]:
    return pieces_of(("train", document(f"text number {number:03}")) for number in range(n))


def test_pieces_know_where_their_document_begins_and_ends(set_in_module: SetInModule) -> None:
    set_in_module(pieces, "PIECE_CHARS", 4)
    given = [
        ("train", document("ünü one two")),
        ("train", document("")),
        ("train", document("long one", more=True)),
        ("val", document("other")),
        ("train", document(" ends")),
        ("val", document("x")),
    ]
    assert [(p.part, p.text, p.is_first, p.is_last, p.n_document_bytes) for p in pieces_of(given)] == [
        ("train", "ünü one", True, False, 13),
        ("train", " two", False, True, 13),
        ("train", "long", True, False, None),
        ("train", " one", False, False, None),
        ("val", "other", True, True, 5),
        ("train", " ends", False, True, None),
        ("val", "x", True, True, 1),
    ]


@pytest.mark.parametrize("n_threads", [1, 2, 5, None])
@pytest.mark.parametrize("n_pieces", [0, 1, 2, 100])
def test_all_pieces_come_in_order_with_their_ids(
    code_points: Callable, set_in_module: SetInModule, n_threads: int | None, n_pieces: int
) -> None:
    set_in_module(encoded, "PIECE_CHARS", 40)  # three documents a batch
    made = [
        pair for batch in encoded(some_pieces(n_pieces), code_points(), DTYPE, n_threads=n_threads) for pair in batch
    ]
    assert [piece for piece, _ in made] == list(some_pieces(n_pieces))
    assert all(ids.dtype == DTYPE and ids.tolist() == code_points().encode(piece.text) for piece, ids in made)


def test_as_many_threads_encode_at_once_as_are_asked_for(set_in_module: SetInModule) -> None:
    set_in_module(encoded, "PIECE_CHARS", 1)
    together = threading.Barrier(3, timeout=30)  # each waits for two others

    class Waits:
        def encode_to_numpy(self, text: str) -> np.ndarray:
            together.wait()
            return np.array([1], np.uint32)

    assert len(list(encoded(some_pieces(9), Waits(), DTYPE, n_threads=3))) == 9  # type: ignore[arg-type]


def test_only_a_few_pieces_are_taken_before_they_are_needed(code_points: Callable, set_in_module: SetInModule) -> None:
    set_in_module(encoded, "PIECE_CHARS", 1)
    taken: list[Piece] = []

    def counted() -> Iterator[Piece]:
        for piece in some_pieces(1000):
            taken.append(piece)
            yield piece

    batches = encoded(counted(), code_points(), DTYPE, n_threads=3)
    for n_given in range(1, 50):
        next(batches)
        assert len(taken) <= n_given + 2 * 3 + 1
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


@pytest.mark.parametrize("n_threads", [1, 4])
def test_an_error_of_the_tokenizer_comes_through_and_no_thread_stays(
    code_points: Callable, set_in_module: SetInModule, n_threads: int
) -> None:
    set_in_module(encoded, "PIECE_CHARS", 1)

    class Fails:
        def encode_to_numpy(self, text: str) -> np.ndarray:
            if text.endswith("013"):
                raise ValueError("thirteen")
            return np.array([1], np.uint32)

    made: list[object] = []
    with pytest.raises(ValueError, match="thirteen"):
        made.extend(encoded(some_pieces(100), Fails(), DTYPE, n_threads=n_threads))  # type: ignore[arg-type]
    assert len(made) == 13
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]
