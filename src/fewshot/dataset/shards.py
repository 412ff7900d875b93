"""Documents in, files of token ids out, with an index that records which text they were made of.

Each document's tokens are followed by the end-of-text token. A source `name` becomes `name-00000.bin`,
`name-00001.bin`, ... (raw little-endian ids) and, written last, the index `name.json`. Knows nothing of batches.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadFile, FewshotError, check
from fewshot.base.files import read_json, sha256_file, write_json, written_whole
from fewshot.base.log import note
from fewshot.corpus.document import Document
from fewshot.tokenizer.pieces import pieces
from fewshot.tokenizer.vocab import Tokenizer

DTYPES = ("uint16", "uint32")


@dataclass(frozen=True, kw_only=True)
class TokenShard:
    """One file of token ids and where it came from."""

    path: Path
    dtype: str  # of `DTYPES`, little-endian in the file
    n_tokens: int  # end-of-text tokens included
    n_documents: int
    n_bytes: int  # of the text in UTF-8: the denominator of bits per byte
    eot: int  # the id that ends every document
    sha256: str  # of the token file
    source_sha256: str  # of all the texts of the source, in order; the same in each of its shards
    tokenizer: str  # fingerprint
    rule: str = ""  # by which its part of the source was chosen, with a version; "" before rules had one

    def __post_init__(self) -> None:
        check(self.dtype in DTYPES, f"dtype is {self.dtype!r}, allowed: {', '.join(DTYPES)}")
        counts = (self.n_tokens, self.n_documents, self.n_bytes, self.eot)
        check(min(counts) >= 0, f"n_tokens, n_documents, n_bytes and eot are {counts}, none may be negative")

    def tokens(self) -> np.memmap:
        """Return the ids, read-only, [n_tokens]; a file that is missing or of another size raises `BadFile`."""
        if not self.has_right_size():
            raise BadFile(f"{self.path} is missing or not {self.n_tokens:,} tokens long: prepare the data again")
        return np.memmap(self.path, dtype=_stored(self.dtype), mode="r")

    def has_right_size(self) -> bool:
        """Return whether the file is there with as many bytes as were written."""
        return self.path.is_file() and self.path.stat().st_size == self.n_tokens * _stored(self.dtype).itemsize


def is_whole(shard: TokenShard) -> bool:
    """Return whether the token file is there, and its sha256 is the recorded one; reads all of it."""
    return shard.has_right_size() and sha256_file(shard.path) == shard.sha256


def load_shards(folder: Path, *, name: str) -> tuple[TokenShard, ...]:
    """Return the shards that `build_shards` left in `folder`; raises `BadFile` unless all are whole.

    The text that they were made of is not needed.
    """
    index = folder / f"{name}.json"
    shards = _read_index(index) if index.is_file() else ()
    if not shards:
        raise BadFile(f"{index} is missing or damaged: start a new run")
    for shard in shards:
        if not is_whole(shard):
            raise BadFile(f"{shard.path} is missing or differs from its recorded sha256: start a new run")
    return shards


def build_shards(
    read: Callable[[], Iterator[Document]],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    name: str,
    rule: str = "",
    max_tokens_per_shard: int = 100_000_000,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[TokenShard, ...]:
    """Return the shards of the documents that `read()` gives, made now or reused from an earlier call.

    Reused when the index records this text (read once, for its hash), this tokenizer, this `rule` by which documents
    were chosen, and the sha256 of the files; otherwise all are made anew and a note says why. Empty documents are left
    out. Only a document that is longer than `max_tokens_per_shard` by itself makes a longer shard. `on_progress` gets
    the running number of bytes tokenised. Of a document, its text and its ids are held, 2 to 4 bytes each, no more.
    Raises `BadFile` if there is no text at all.
    """
    check(max_tokens_per_shard >= 1, f"max_tokens_per_shard is {max_tokens_per_shard}, it must be at least 1")
    index = folder / f"{name}.json"
    if index.exists():
        shards = _read_index(index)
        why = _why_stale(shards, read, tokenizer, rule)
        if why is None:
            return shards
        note(f"{name}: tokenising again: {why}")
        index.unlink()  # first of all, so that an interruption never leaves an index beside files it does not describe
    for old in folder.glob(f"{glob.escape(name)}-[0-9][0-9][0-9][0-9][0-9].bin"):
        old.unlink()
    written = _write_shards(read, tokenizer, folder, name, max_tokens_per_shard, on_progress)
    shards = tuple(dataclasses.replace(shard, rule=rule) for shard in written)
    if not shards:
        raise BadFile(f"{name}: there is no text to tokenise: give at least one document that is not empty")
    write_json(index, {"shards": [to_plain(shard) | {"path": shard.path.name} for shard in shards]})
    return shards


def _read_index(index: Path) -> tuple[TokenShard, ...]:
    """Return the shards that an index records; none if it is damaged."""
    try:
        entries = read_json(index)["shards"]
        located = [{**entry, "path": index.parent / entry["path"]} for entry in entries]
        return tuple(from_plain(TokenShard, entry, where=str(index)) for entry in located)
    except (FewshotError, KeyError, TypeError):
        return ()


def _why_stale(
    shards: tuple[TokenShard, ...], read: Callable[[], Iterator[Document]], tokenizer: Tokenizer, rule: str
) -> str | None:
    """Return why recorded shards cannot be used; None if they can."""
    if not shards or not all(map(is_whole, shards)):
        return "file damaged"
    if shards[0].tokenizer != tokenizer.fingerprint:
        return "tokenizer changed"
    if shards[0].rule != rule:
        return "validation text chosen by another rule"
    digest = hashlib.sha256()
    for _ in _texts(read, digest):
        pass
    return None if shards[0].source_sha256 == digest.hexdigest() else "text changed"


def _texts(read: Callable[[], Iterator[Document]], digest: hashlib._Hash) -> Iterator[tuple[str, int]]:
    """Yield each text that is not empty and its size in bytes.

    Both are also fed to `digest`; the size marks where a text ends.
    """
    for document in read():
        if document.text:
            data = document.text.encode("utf-8")
            n_bytes = len(data)
            digest.update(n_bytes.to_bytes(8, "little"))
            digest.update(data)
            del data  # not while its tokens are made
            yield document.text, n_bytes


def _write_shards(
    read: Callable[[], Iterator[Document]],
    tokenizer: Tokenizer,
    folder: Path,
    name: str,
    max_tokens_per_shard: int,
    on_progress: Callable[[int], None] | None,
) -> tuple[TokenShard, ...]:
    dtype = "uint16" if tokenizer.n_vocab <= 65536 else "uint32"
    source_digest = hashlib.sha256()
    encoded = _encoded(_texts(read, source_digest), tokenizer, _stored(dtype), on_progress)
    shards: list[TokenShard] = []
    pending = next(encoded, None)
    while pending is not None:
        path = folder / f"{name}-{len(shards):05}.bin"
        digest = hashlib.sha256()
        n_tokens = n_documents = n_bytes = 0
        with written_whole(path) as partial, partial.open("wb") as file:
            while pending is not None and (n_tokens == 0 or n_tokens + pending.n_tokens <= max_tokens_per_shard):
                for ids in pending.ids:
                    file.write(ids.data)
                    digest.update(ids.data)
                n_tokens, n_documents, n_bytes = n_tokens + pending.n_tokens, n_documents + 1, n_bytes + pending.n_bytes
                pending = next(encoded, None)
        shards.append(
            TokenShard(
                path=path,
                dtype=dtype,
                n_tokens=n_tokens,
                n_documents=n_documents,
                n_bytes=n_bytes,
                eot=tokenizer.eot,
                sha256=digest.hexdigest(),
                source_sha256="",  # known after the last document
                tokenizer=tokenizer.fingerprint,
            )
        )
    return tuple(dataclasses.replace(shard, source_sha256=source_digest.hexdigest()) for shard in shards)


@dataclass(frozen=True)
class _Encoded:
    """One document's ids, its end-of-text token included, and its size."""

    ids: list[np.ndarray]  # of its pieces
    n_bytes: int

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.ids))


def _encoded(
    texts: Iterator[tuple[str, int]], tokenizer: Tokenizer, dtype: np.dtype, on_progress: Callable[[int], None] | None
) -> Iterator[_Encoded]:
    """Yield the token ids of the texts, one text at a time."""
    n_done = 0
    for text, n_bytes in texts:
        ids = []
        for piece in pieces(text):
            ids.append(tokenizer.encode_to_numpy(piece).astype(dtype))
            if on_progress is not None:
                n_done += len(piece.encode())
                on_progress(n_done)
        yield _Encoded([*ids, np.array([tokenizer.eot], dtype)], n_bytes)


def _stored(dtype: str) -> np.dtype:
    """Return the type of the ids in the file: little-endian on every machine."""
    return np.dtype(dtype).newbyteorder("<")
