"""Token shards in, the documents that they were made of out: a run's training text even if its files are gone."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fewshot.base.errors import check
from fewshot.corpus.document import Document
from fewshot.dataset.shards import TokenShard
from fewshot.tokenizer.vocab import Tokenizer

READ_TOKENS = 1 << 20  # looked at and decoded at once: as a list they take 36 MB
PIECE_TOKENS = 1 << 11  # in a row, of a sample


def documents_of_shards(shards: Iterable[TokenShard], tokenizer: Tokenizer) -> Iterator[Document]:
    """Yield the documents of `shards`, in order, one in memory at a time; ids count them in their file, from 1.

    `tokenizer` is the one that made the shards, else this raises `BadValue`; a missing file raises `BadFile`.
    """
    for shard in shards:
        check(
            shard.tokenizer == tokenizer.fingerprint,
            f"{shard.path} was made with another tokenizer: give the tokenizer of the same run folder",
        )
        tokens, start = np.asarray(shard.tokens()), 0
        for number, end in enumerate(_ends(tokens, shard.eot), start=1):
            text = _text(tokens[start:end], tokenizer)
            yield Document(id=f"{shard.path}#{number}", text=text, source=shard.path.stem)
            start = end + 1


def sample_of_shards(shards: Sequence[TokenShard], tokenizer: Tokenizer, *, max_bytes: int) -> list[bytes]:
    """Return pieces of the shards' text, spread evenly over it, of about `max_bytes` bytes; or all, if it is not more.

    Every end of a document is a zero byte. `tokenizer` is the one that made the shards. Only what is returned is read.
    """
    n_bytes = sum(shard.n_bytes for shard in shards)
    pieces = []
    for shard in shards:
        tokens, starts, length = np.asarray(shard.tokens()), np.zeros(1, np.int64), shard.n_tokens
        if n_bytes > max_bytes:
            length = min(PIECE_TOKENS, shard.n_tokens)
            n_pieces = math.ceil(max_bytes / n_bytes * shard.n_tokens / length)
            starts = np.linspace(0, shard.n_tokens - length, n_pieces).astype(np.int64)
        for start in starts.tolist():
            ids = tokens[start : start + length]
            inside = (part[part != shard.eot].tolist() for part in np.split(ids, np.flatnonzero(ids == shard.eot) + 1))
            pieces.append(b"\0".join(map(tokenizer.decode_bytes, inside)))
    return pieces


def _ends(tokens: np.ndarray, eot: int) -> Iterator[int]:
    """Yield the positions of the end-of-text tokens."""
    for first in range(0, len(tokens), READ_TOKENS):
        yield from (np.flatnonzero(tokens[first : first + READ_TOKENS] == eot) + first).tolist()


def _text(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """Return the text of one document; a character may lie on both sides of a border between two reads."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    reads = (ids[first : first + READ_TOKENS].tolist() for first in range(0, len(ids), READ_TOKENS))
    return "".join([decoder.decode(tokenizer.decode_bytes(read)) for read in reads]) + decoder.decode(b"", final=True)
