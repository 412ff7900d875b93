"""Documents in, pieces of text with their token ids out: in the same order, encoded by all processors at once.

Encoding runs in threads, as tiktoken works without Python's lock: nothing is copied between processes, and no process
has to be started, stopped or missed. Only a few pieces are under way at a time. Knows nothing of files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fewshot.base.machine import n_cores
from fewshot.base.text import utf8_size
from fewshot.corpus.document import Document
from fewshot.tokenizer.pieces import PIECE_CHARS, pieces
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a document that is encoded by itself."""

    part: str  # of the data that the document belongs to, such as books-train
    text: str
    is_first: bool  # of its document
    is_last: bool
    n_document_bytes: int | None  # of the whole document in UTF-8; None if it comes in stretches


Encoded = list[tuple[Piece, np.ndarray]]  # neighbouring pieces with their ids


def pieces_of(documents: Iterable[tuple[str, Document]]) -> Iterator[Piece]:
    """Yield the pieces of documents that are not empty, each given with its part."""
    goes_on: set[str] = set()  # parts whose last document is to go on with the next
    for part, document in documents:
        text, more = document.text, document.more
        if not text:
            continue
        is_first = part not in goes_on
        size = None if more or not is_first else utf8_size(text)
        end = 0
        for piece in pieces(text):
            end += len(piece)
            yield Piece(part, piece, is_first, not more and end == len(text), size)
            is_first = False
        (goes_on.add if more else goes_on.discard)(part)


def encoded(
    pieces: Iterator[Piece], tokenizer: Tokenizer, dtype: np.dtype, *, n_threads: int | None = None
) -> Generator[Encoded, None, None]:
    """Yield all pieces with their ids, in order, some at a time; `n_threads` is the number of processors if not given.

    A text that is a single batch is encoded without threads. Errors of the tokenizer and of `pieces` come through.
    """
    n_threads = n_cores() if n_threads is None else n_threads
    batches = _batches(pieces)
    begun = list(islice(batches, 2))
    if n_threads == 1 or len(begun) < 2:
        for batch in begun:
            yield _encode(batch, tokenizer, dtype)
        for batch in batches:
            yield _encode(batch, tokenizer, dtype)
        return
    waiting: deque[Future[Encoded]] = deque()
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="encode")
    try:
        for source in (begun, batches):
            for batch in source:
                waiting.append(threads.submit(_encode, batch, tokenizer, dtype))
                if len(waiting) > 2 * n_threads:  # each thread has a batch, and another for when it is done
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Yield neighbouring pieces together, so that handing short ones over does not take longer than encoding them."""
    batch: list[Piece] = []
    n_chars = 0
    for piece in pieces:
        batch.append(piece)
        n_chars += len(piece.text)
        if n_chars >= PIECE_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch


def _encode(batch: list[Piece], tokenizer: Tokenizer, dtype: np.dtype) -> Encoded:
    return [(piece, tokenizer.encode_to_numpy(piece.text).astype(dtype)) for piece in batch]
