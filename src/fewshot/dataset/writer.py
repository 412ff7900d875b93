"""Pieces of documents with their ids in, the token files of one part out, which can be left and taken up again.

The files are written under their own names: whoever calls makes the index that says that they are whole. Knows nothing
of other parts, and nothing of how ids are made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fewshot.dataset.encode import Piece
from fewshot.dataset.shards import TokenShard, is_whole, stored_type

COPY_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class PartState:
    """How far one part has come: all that is needed to go on, beside its files and its text."""

    shards: tuple[TokenShard, ...] = ()  # the complete ones
    n_tokens: int = 0  # in the open shard
    n_documents: int = 0  # ended in the open shard
    n_bytes: int = 0  # of text in the open shard
    begun_tokens: int = 0  # where in the open shard the last document begins
    begun_bytes: int = 0
    text_sha256: str = hashlib.sha256().hexdigest()  # of all the part's text so far


class TextDigest:
    """The sha256 of all texts of a part, with their sizes, which mark where a text ends."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._n_bytes = 0  # of the text that has begun

    def update(self, piece: Piece) -> int:
        """Take the next piece, and return its bytes in UTF-8."""
        data = piece.text.encode()
        if piece.is_first:
            self._n_bytes = 0
            if piece.n_document_bytes is not None:
                self._digest.update(piece.n_document_bytes.to_bytes(8, "little"))
        self._digest.update(data)
        self._n_bytes += len(data)
        if piece.is_last and piece.n_document_bytes is None:  # the size of a long text is not known before its end
            self._digest.update(self._n_bytes.to_bytes(8, "little"))
        return len(data)

    def hexdigest(self) -> str:
        """Return the digest of all texts so far."""
        return self._digest.hexdigest()


class PartWriter:
    """Writes the shards of one part; only a document longer than `max_tokens` makes a longer shard."""

    def __init__(
        self, folder: Path, name: str, *, dtype: str, eot: int, tokenizer: str, rule: str, max_tokens: int
    ) -> None:
        """Nothing is written before `begin`; `tokenizer` is the fingerprint of the one that makes the ids."""
        self._folder, self._name = folder, name
        self._dtype, self._eot, self._tokenizer, self._rule = dtype, eot, tokenizer, rule
        self._max_tokens = max_tokens
        self._file: BinaryIO | None = None
        self._to_cut: list[TokenShard] = []  # complete ones whose file goes on with a document of the next
        self.digest = TextDigest()
        self._set(PartState())

    def _set(self, state: PartState) -> None:
        self.shards = list(state.shards)
        self._n_tokens, self._n_documents, self._n_bytes = state.n_tokens, state.n_documents, state.n_bytes
        self._begun_tokens, self._begun_bytes = state.begun_tokens, state.begun_bytes
        self._ids_digest = hashlib.sha256()  # of the open shard
        self._begun_digest = hashlib.sha256()  # of the open shard before the last document

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._name}-{len(self.shards):05}.bin"

    @property
    def _itemsize(self) -> int:
        return stored_type(self._dtype).itemsize

    def state(self) -> PartState:
        """Return how far this has come."""
        return PartState(
            shards=tuple(self.shards),
            n_tokens=self._n_tokens,
            n_documents=self._n_documents,
            n_bytes=self._n_bytes,
            begun_tokens=self._begun_tokens,
            begun_bytes=self._begun_bytes,
            text_sha256=self.digest.hexdigest(),
        )

    def begin(self, state: PartState) -> bool:
        """Take up the files where `state` was, and delete what was written later; False if they are damaged.

        The text so far must go through `digest` once more.
        """
        self.close()
        self._set(state)
        self.digest, self._to_cut = TextDigest(), [*state.shards]
        kept = {shard.path for shard in state.shards} | ({self._path} if state.n_tokens else set())
        for path in sorted(self._folder.glob(f"{glob.escape(self._name)}-[0-9][0-9][0-9][0-9][0-9].bin")):
            if path not in kept:
                path.unlink()
        self.cut()
        if not all(map(is_whole, state.shards)):
            return False
        return not state.n_tokens or self._reopen()

    def _reopen(self) -> bool:
        """Open the shard that was left open, cut to the tokens that count; False if it has fewer."""
        if not self._path.is_file() or self._path.stat().st_size < self._n_tokens * self._itemsize:
            return False
        self._file = self._path.open("r+b")
        self._file.truncate(self._n_tokens * self._itemsize)
        self._hash_ids(0, self._begun_tokens)
        self._begun_digest = self._ids_digest.copy()
        self._hash_ids(self._begun_tokens, self._n_tokens)
        return True

    def write(self, piece: Piece, ids: np.ndarray) -> int:
        """Write the ids of the next piece, and the end-of-text token behind the last one of a document.

        Returns the bytes of its text.
        """
        n_bytes = self.digest.update(piece)
        if piece.is_first:
            self._begun_tokens, self._begun_bytes = self._n_tokens, self._n_bytes
            self._begun_digest = self._ids_digest.copy()
        if piece.is_last:
            ids = np.append(ids, np.array([self._eot], ids.dtype))
        if self._begun_tokens and self._n_tokens + len(ids) > self._max_tokens:
            self._move_document()
        with _naming(self._path):
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("w+b")
            self._file.write(ids.data)
        self._ids_digest.update(ids.data)
        self._n_tokens += len(ids)
        self._n_bytes += n_bytes
        self._n_documents += piece.is_last
        return n_bytes

    def _move_document(self) -> None:
        """Complete the open shard without the document that has begun, which begins the next shard."""
        before, begun, end, n_bytes = self._file, self._begun_tokens, self._n_tokens, self._n_bytes
        assert before is not None
        begun_bytes = n_bytes - self._begun_bytes
        self._n_tokens, self._n_bytes, self._ids_digest = begun, self._begun_bytes, self._begun_digest
        shard = self._as_shard()
        following = self._folder / f"{self._name}-{len(self.shards) + 1:05}.bin"
        with _naming(self._path):
            _to_disk(before)
        with _naming(following), contextlib.ExitStack() as on_error:
            file = on_error.enter_context(following.open("w+b"))
            for data in _blocks(before, begun * self._itemsize, end * self._itemsize):
                file.write(data)
            on_error.pop_all()
        before.close()
        self._to_cut.append(shard)
        self._set(PartState(shards=(*self.shards, shard), n_tokens=end - begun, n_bytes=begun_bytes))
        self._file = file
        self._hash_ids(0, self._n_tokens)

    def _hash_ids(self, start: int, end: int) -> None:
        assert self._file is not None
        for data in _blocks(self._file, start * self._itemsize, end * self._itemsize):
            self._ids_digest.update(data)

    def _as_shard(self) -> TokenShard:
        return TokenShard(
            path=self._path,
            dtype=self._dtype,
            n_tokens=self._n_tokens,
            n_documents=self._n_documents,
            n_bytes=self._n_bytes,
            eot=self._eot,
            sha256=self._ids_digest.hexdigest(),
            source_sha256="",  # known after the last document
            tokenizer=self._tokenizer,
            rule=self._rule,
        )

    def cut(self) -> None:
        """Cut complete shards to their own tokens; only once it is stored that they are complete.

        Whoever takes up a state from before needs the tokens of the document that moved on, where they were.
        """
        while self._to_cut:
            shard = self._to_cut.pop()
            if shard.path.is_file() and shard.path.stat().st_size > shard.n_tokens * self._itemsize:
                with _naming(shard.path), shard.path.open("r+b") as file:
                    file.truncate(shard.n_tokens * self._itemsize)
                    _to_disk(file)

    def finish(self) -> None:
        """Complete the open shard."""
        self.cut()
        if self._file is not None:
            self.flush()
            shard = self._as_shard()
            self.close()
            self._set(PartState(shards=(*self.shards, shard)))

    def complete_shards(self) -> tuple[TokenShard, ...]:
        """Return all shards after `finish`; each knows the digest of the whole text."""
        return tuple(dataclasses.replace(shard, source_sha256=self.digest.hexdigest()) for shard in self.shards)

    def flush(self) -> None:
        """Wait until everything written is on disk."""
        if self._file is not None:
            with _naming(self._path):
                _to_disk(self._file)

    def close(self) -> None:
        """Close the open file, if there is one; a disk that is full is no reason not to."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def _blocks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes from `start` to `end`, after which the file stands at `end`."""
    file.seek(start)
    while start < end:
        data = file.read(min(COPY_BYTES, end - start))
        start += len(data)
        yield data


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the path into errors of the system, which do not know it when a disk is full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
