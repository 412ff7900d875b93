"""Documents in, shards of their tokens out: made now, reused from an earlier call, or gone on with where one stopped.

While it is made, `NAME.unfinished.json` of the first part says up to where the files can be trusted; a killed process
leaves it there. Knows nothing of batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadFile, FewshotError, check
from fewshot.base.files import read_json, write_json
from fewshot.base.log import note
from fewshot.base.machine import in_bytes
from fewshot.corpus.document import Document
from fewshot.dataset.encode import Encoded, Piece, encoded, pieces_of
from fewshot.dataset.shards import TokenShard, is_whole, read_index, stored_type, write_index
from fewshot.dataset.writer import PartState, PartWriter, TextDigest
from fewshot.tokenizer.vocab import Tokenizer

SHARD_TOKENS = 100_000_000
SAVE_BYTES = 1 << 27  # of text: how much a killed process loses at most; a few seconds of work

Read = Callable[[], Iterator[tuple[str, Document]]]


def build_shards(
    read: Callable[[], Iterator[Document]],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    name: str,
    rule: str = "",
    max_tokens_per_shard: int = SHARD_TOKENS,
    on_progress: Callable[[int], None] | None = None,
    n_threads: int | None = None,
) -> tuple[TokenShard, ...]:
    """Return the shards of the documents that `read()` gives, a single part; see `build_parts`."""
    return build_parts(
        lambda: ((name, document) for document in read()),
        tokenizer,
        folder,
        parts=[name],
        rule=rule,
        max_tokens_per_shard=max_tokens_per_shard,
        on_progress=on_progress,
        n_threads=n_threads,
    )[name]


def build_parts(
    read: Read,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    parts: Sequence[str],
    rule: str = "",
    max_tokens_per_shard: int = SHARD_TOKENS,
    on_progress: Callable[[int], None] | None = None,
    n_threads: int | None = None,
) -> dict[str, tuple[TokenShard, ...]]:
    """Return the shards of each part of the documents, which `read()` gives with the names of their parts.

    Reused when the indexes record this text (read once, for its hash), this tokenizer, this `rule` by which documents
    were chosen, and the sha256 of the files; otherwise all are made anew and a note says why. If an earlier call was
    stopped, this one goes on behind what it had written, once the text up to there is known to be the same.
    Empty documents are left out. Only a document that is longer than `max_tokens_per_shard` by itself makes a longer
    shard. `on_progress` gets the running number of bytes tokenised. Files and shards do not depend on `n_threads`, by
    default the number of processors; a few pieces of text are held for each.
    Raises `BadFile` if a part has no text at all.
    """
    check(max_tokens_per_shard >= 1, f"max_tokens_per_shard is {max_tokens_per_shard}, it must be at least 1")
    unfinished = folder / f"{parts[0]}.unfinished.json"
    indexes = {part: folder / f"{part}.json" for part in parts}
    if all(index.exists() for index in indexes.values()):
        recorded = {part: read_index(index) for part, index in indexes.items()}
        stale = _why_stale(recorded, read, tokenizer, rule)
        if stale is None:
            unfinished.unlink(missing_ok=True)  # of a process that was killed just before it did this
            return recorded
        note(f"{stale[0]}: tokenising again: {stale[1]}")
    for index in indexes.values():  # first of all, so that no index is ever beside files that it does not describe
        index.unlink(missing_ok=True)
    made_by = _MadeBy(tokenizer=tokenizer.fingerprint, rule=rule, max_tokens_per_shard=max_tokens_per_shard)
    dtype = "uint16" if tokenizer.n_vocab <= 65536 else "uint32"
    writers = {
        part: PartWriter(
            folder,
            part,
            dtype=dtype,
            eot=tokenizer.eot,
            tokenizer=made_by.tokenizer,
            rule=rule,
            max_tokens=max_tokens_per_shard,
        )
        for part in parts
    }
    job = _Job(unfinished, made_by, writers, on_progress or (lambda n_bytes: None))
    stream = job.take_up(read) or job.start(read)
    with contextlib.closing(encoded(stream, tokenizer, stored_type(dtype), n_threads=n_threads)) as batches:
        job.write(batches)
    made = {part: writer.complete_shards() for part, writer in writers.items()}
    for part, shards in made.items():
        if not shards:
            job.start(read)  # deletes what the others have
            raise BadFile(f"{part}: there is no text to tokenise: give at least one document that is not empty")
    for part, shards in made.items():
        write_index(indexes[part], shards)
    job.path.unlink(missing_ok=True)
    return made


def _why_stale(
    recorded: Mapping[str, tuple[TokenShard, ...]], read: Read, tokenizer: Tokenizer, rule: str
) -> tuple[str, str] | None:
    """Return the first part whose recorded shards cannot be used, and why; None if all can."""
    for part, shards in recorded.items():
        if not shards or not all(map(is_whole, shards)):
            return part, "file damaged"
        if shards[0].tokenizer != tokenizer.fingerprint:
            return part, "tokenizer changed"
        if shards[0].rule != rule:
            return part, "validation text chosen by another rule"
    digests = {part: TextDigest() for part in recorded}
    for piece in pieces_of(read()):
        digests[piece.part].update(piece)
    changed = (part for part, shards in recorded.items() if shards[0].source_sha256 != digests[part].hexdigest())
    return next(((part, "text changed") for part in changed), None)


@dataclass(frozen=True, kw_only=True)
class _MadeBy:
    """What the files depend on, beside the text."""

    tokenizer: str
    rule: str
    max_tokens_per_shard: int


@dataclass(frozen=True, kw_only=True)
class _Unfinished:
    """How far all parts had come at the same place of the text."""

    made_by: _MadeBy
    n_pieces: int  # of all parts together
    parts: tuple[PartState, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of text that were tokenised."""
        return sum(part.n_bytes + sum(shard.n_bytes for shard in part.shards) for part in self.parts)


@dataclass
class _Job:
    """Tokenising from the first document to the last, which can be left at any time and taken up again."""

    path: Path  # says how far it had come
    made_by: _MadeBy
    writers: Mapping[str, PartWriter]
    on_progress: Callable[[int], None]
    n_pieces: int = 0
    n_bytes: int = 0

    def start(self, read: Read) -> Iterator[Piece]:
        """Return all pieces; nothing of an earlier call is left."""
        self.path.unlink(missing_ok=True)
        for writer in self.writers.values():
            writer.begin(PartState())
        self.n_pieces = self.n_bytes = 0
        return pieces_of(read())

    def take_up(self, read: Read) -> Iterator[Piece] | None:
        """Return the pieces behind those that an earlier call wrote; None if it left nothing to go on with."""
        if not self.path.is_file():
            return None
        stream = pieces_of(read())
        left = self._load()
        why = "file damaged" if left is None else self._why_not(left, stream)
        if left is None or why is not None:
            note(f"{next(iter(self.writers))}: tokenising from the beginning: {why}")
            return None
        note(f"{next(iter(self.writers))}: going on behind {in_bytes(left.n_bytes)} that were tokenised before")
        self.n_pieces, self.n_bytes = left.n_pieces, left.n_bytes
        return stream

    def _why_not(self, left: _Unfinished, stream: Iterator[Piece]) -> str | None:
        """Return why it cannot be gone on; None if it can, after taking what was written from `stream`."""
        if left.made_by.tokenizer != self.made_by.tokenizer:
            return "tokenizer changed"
        if left.made_by.rule != self.made_by.rule:
            return "validation text chosen by another rule"
        if left.made_by != self.made_by:
            return "other size of shards"
        if not all(writer.begin(part) for writer, part in self._with_parts(left)):
            return "file damaged"
        n_bytes = 0
        for piece in islice(stream, left.n_pieces):
            n_bytes += self.writers[piece.part].digest.update(piece)
            self.on_progress(n_bytes)
        same = all(writer.digest.hexdigest() == part.text_sha256 for writer, part in self._with_parts(left))
        return None if same else "text changed"

    def _with_parts(self, left: _Unfinished) -> Iterator[tuple[PartWriter, PartState]]:
        return zip(self.writers.values(), left.parts, strict=True)

    def write(self, batches: Iterator[Encoded]) -> None:
        """Write all pieces; where this is stopped, it can be taken up; where it is killed, from `SAVE_BYTES` before."""
        reached, saved_bytes, n_shards = self._reached(), self.n_bytes, self._n_shards()
        try:
            for batch in batches:
                for piece, ids in batch:
                    self.n_bytes += self.writers[piece.part].write(piece, ids)
                    self.on_progress(self.n_bytes)
                self.n_pieces += len(batch)
                reached = self._reached()
                if self.n_bytes - saved_bytes >= SAVE_BYTES or self._n_shards() > n_shards:
                    self._save(reached)
                    for writer in self.writers.values():
                        writer.cut()
                    saved_bytes, n_shards = self.n_bytes, self._n_shards()
            for writer in self.writers.values():
                writer.finish()
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk: then what was saved before is true
                if reached.n_pieces:
                    self._save(reached)
                else:
                    for writer in self.writers.values():
                        writer.begin(PartState())
            raise
        finally:
            for writer in self.writers.values():
                writer.close()

    def _n_shards(self) -> int:
        return sum(len(writer.shards) for writer in self.writers.values())

    def _reached(self) -> _Unfinished:
        parts = tuple(writer.state() for writer in self.writers.values())
        return _Unfinished(made_by=self.made_by, n_pieces=self.n_pieces, parts=parts)

    def _save(self, reached: _Unfinished) -> None:
        """Write how far this has come, once the tokens up to there are on disk."""
        for writer in self.writers.values():
            writer.flush()
        plain = to_plain(reached)
        for part in plain["parts"]:
            for shard in part["shards"]:
                shard["path"] = shard["path"].name
        write_json(self.path, plain)

    def _load(self) -> _Unfinished | None:
        """Return what an earlier call left; None if it is damaged, or of other parts."""
        try:
            plain = read_json(self.path)
            for part in plain["parts"]:
                part["shards"] = [{**shard, "path": self.path.parent / shard["path"]} for shard in part["shards"]]
            left = from_plain(_Unfinished, plain, where=str(self.path))
        except (FewshotError, KeyError, TypeError):
            return None
        return left if len(left.parts) == len(self.writers) else None
