"""Files of token ids, with an index that records which text they were made of.

Each document's tokens are followed by the end-of-text token. A source `name` becomes `name-00000.bin`,
`name-00001.bin`, ... (raw little-endian ids) and, written last, the index `name.json`. Knows nothing of batches, and
nothing of how the files are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadFile, FewshotError, check
from fewshot.base.files import read_json, sha256_file, write_json

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
        return np.memmap(self.path, dtype=stored_type(self.dtype), mode="r")

    def has_right_size(self) -> bool:
        """Return whether the file is there with as many bytes as were written."""
        return self.path.is_file() and self.path.stat().st_size == self.n_tokens * stored_type(self.dtype).itemsize


def is_whole(shard: TokenShard) -> bool:
    """Return whether the token file is there, and its sha256 is the recorded one; reads all of it."""
    return shard.has_right_size() and sha256_file(shard.path) == shard.sha256


def load_shards(folder: Path, *, name: str) -> tuple[TokenShard, ...]:
    """Return the shards that `build_shards` left in `folder`; raises `BadFile` unless all are whole.

    The text that they were made of is not needed.
    """
    index = folder / f"{name}.json"
    shards = read_index(index) if index.is_file() else ()
    if not shards:
        raise BadFile(f"{index} is missing or damaged: start a new run")
    for shard in shards:
        if not is_whole(shard):
            raise BadFile(f"{shard.path} is missing or differs from its recorded sha256: start a new run")
    return shards


def write_index(index: Path, shards: Iterable[TokenShard]) -> None:
    """Write the index that says that these shards, beside it, are whole."""
    write_json(index, {"shards": [to_plain(shard) | {"path": shard.path.name} for shard in shards]})


def read_index(index: Path) -> tuple[TokenShard, ...]:
    """Return the shards that an index records; none if it is damaged."""
    try:
        entries = read_json(index)["shards"]
        located = [{**entry, "path": index.parent / entry["path"]} for entry in entries]
        return tuple(from_plain(TokenShard, entry, where=str(index)) for entry in located)
    except (FewshotError, KeyError, TypeError):
        return ()


def stored_type(dtype: str) -> np.dtype:
    """Return the type of the ids in the file: little-endian on every machine."""
    return np.dtype(dtype).newbyteorder("<")
