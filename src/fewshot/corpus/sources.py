"""Files and folders become documents.

In: paths of text, JSON lines and Parquet, plain or compressed. Out: a stream of `Document`, one file or one record
each, or a long file in stretches. It does not know whether a text is good, repeated or needed: it only refuses what it
cannot read.
"""

from __future__ import annotations

import gzip
import importlib
import os
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import decode_text, parse_json, read_text
from fewshot.base.log import note
from fewshot.base.text import without_surrogates
from fewshot.corpus.document import Document
from fewshot.corpus.folder import READ_BEFORE, files_of, is_new
from fewshot.corpus.remote import fetch, is_remote, kept_at
from fewshot.corpus.stretches import LONG_BYTES, stretches_of

Records = Iterator[tuple[str, str]]  # "#" and the record's number, or "" for a whole file; and the text
MAX_SKIP_LINES = 10  # per folder; the rest is counted
BLOCK_BYTES = 1 << 16  # of compressed input held at a time
ROWS_AT_ONCE = 32  # of a Parquet file: each may be a book
PARQUET_BUFFER = 1 << 20  # bytes; without a buffer, a column of all rows that were written together is held


@dataclass(frozen=True)
class _Field:
    """The field of records that holds the text."""

    name: str
    option: str  # what the user sets to name another


def read_documents(
    paths: Iterable[Path | str],
    *,
    text_field: str = "text",
    field_option: str = "text_field",
    source: str = "text",
    on_skip: Callable[[str], None] = note,
    in_stretches: bool = False,
) -> Iterator[Document]:
    """Yield the documents of files and folders, in the order given; folders recursively and sorted by path.

    One document a text file; one a line of .jsonl or .json and one a row of .parquet, from `text_field`; errors tell
    the user to name another by `field_option`. Blank records are left out. A path named here that cannot be read
    raises `BadFile`; a file of a folder that cannot be read is left out with a line to `on_skip`, and a folder without
    any document raises. Records are streamed. With `in_stretches`, a text file of more than `LONG_BYTES` comes as
    several documents, all but the last with `more`, so that it is never held as a whole.
    """
    given, field = check_paths(paths), _Field(text_field, field_option)
    seen: set[tuple[int, int]] = set()
    for path in given:
        if path.is_dir():
            yield from _read_folder(path, field, source, on_skip, seen, in_stretches)
        elif is_new(path, seen):
            yield from _read_file(path, path.parent, field, source, in_stretches)
        else:
            on_skip(f"{path} is given twice and read once")


def check_paths(paths: Iterable[Path | str]) -> list[Path]:
    """Return the paths, ready to be opened; raise `BadFile` for one that is missing or cannot be read.

    All of them are checked before any is read, and before text at an address is fetched: the error of a misspelt last
    one must not come after hours of reading.
    """
    asked = list(paths)
    given = [text_path(path) for path in asked]
    remote = [is_remote(path) for path in asked]
    for path in (path for path, is_elsewhere in zip(given, remote, strict=True) if not is_elsewhere):
        if not path.exists():
            raise BadFile(f"{path} does not exist")
        if path.is_file():
            _reader(path)
        elif not path.is_dir():
            raise BadFile(f"{path} is a pipe or a device, which cannot be read twice: write it into a file first")
    for address in (str(path) for path, is_elsewhere in zip(asked, remote, strict=True) if is_elsewhere):
        fetch(address, wanted=lambda name: _suffix(Path(name)) is not None)
    return given


def text_path(path: Path | str) -> Path:
    """Return `path` with ~ as the home folder, or where the text of an address is kept.

    An empty one, which would be the current folder, raises `BadValue`.
    """
    if is_remote(path):
        return kept_at(str(path))
    if path == "":
        raise BadValue("the path of a text is empty: name a file or a folder; the current folder is .")
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~name without such a user
        return Path(path)


def _read_folder(
    folder: Path,
    field: _Field,
    source: str,
    on_skip: Callable[[str], None],
    seen: set[tuple[int, int]],
    in_stretches: bool,
) -> Iterator[Document]:
    not_read: Counter[str] = Counter()
    files = list(files_of(folder, not_read, seen))
    known = [path for path in files if _suffix(path)]
    not_read["files in unsupported formats"] = len(files) - len(known)
    if left_out := [f"{n:,} {what}" for what, n in not_read.items() if n]:
        on_skip(f"{folder}: {', '.join(left_out)} are not read")
    n_documents = n_skipped = 0
    for path in known:
        n_before = n_documents
        try:
            for document in _read_file(path, folder, field, source, in_stretches):
                n_documents += not document.more
                yield document
        except BadFile as error:
            n_skipped += 1
            if n_skipped <= MAX_SKIP_LINES:
                n_kept = n_documents - n_before
                on_skip(f"skipped{f' after {n_kept:,} documents' if n_kept else ''}: {error}")
    if n_skipped > MAX_SKIP_LINES:
        on_skip(f"{folder}: {n_skipped:,} files were skipped, the first {MAX_SKIP_LINES} are shown above")
    if not n_documents and not not_read[READ_BEFORE]:
        raise BadFile(f"{folder} holds no readable document ({len(files):,} files); readable: {', '.join(SUFFIXES)}")


def _read_file(path: Path, root: Path, field: _Field, source: str, in_stretches: bool) -> Iterator[Document]:
    """Yield the documents of one file; their keys are its path below `root`, composed (NFC).

    Some systems store names decomposed: keys must not depend on that.
    """
    name = _encodable(str(path))
    key = unicodedata.normalize("NFC", _encodable(path.relative_to(root).as_posix()))
    n_documents = 0
    try:
        n_bytes = path.stat().st_size
        if n_bytes == 0:
            raise BadFile(f"{name} is empty")
        reader = _reader(path)
        if in_stretches and n_bytes > LONG_BYTES and reader is _read_text_file:
            for text, more in stretches_of(path):
                n_documents += 1
                yield Document(id=name, text=text, source=source, key=key, more=more)
            return
        for number, text in reader(path, field):
            if text and not text.isspace():
                n_documents += 1
                yield Document(id=name + number, text=text, source=source, key=key + number)
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{name} cannot be read, it may be damaged: {error}") from None
    if not n_documents:
        raise BadFile(f"{name} holds no text, only blanks")


def _encodable(path: str) -> str:
    """Return a path as text that UTF-8 can hold: bytes of a name in another encoding are written as \\xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _read_text_file(path: Path, field: _Field) -> Records:
    yield "", read_text(path)


def _read_json_lines(path: Path, field: _Field) -> Records:
    with path.open("rb") as lines:
        yield from _records_of(lines, path, field)


def _read_gzip(path: Path, field: _Field) -> Records:
    with gzip.open(path, "rb") as lines:
        yield from _records_of(lines, path, field)


def _read_zstd(path: Path, field: _Field) -> Records:
    zstandard = _extra("zstandard", path)
    try:
        yield from _records_of(_split_lines(_decompress(path, zstandard)), path, field)
    except zstandard.ZstdError as error:
        raise BadFile(f"{path} cannot be read, it may be damaged: {error}") from None


def _read_parquet(path: Path, field: _Field) -> Records:
    parquet, arrow = _extra("pyarrow.parquet", path), _extra("pyarrow", path)
    try:
        with parquet.ParquetFile(path, buffer_size=PARQUET_BUFFER) as file:
            if field.name not in file.schema_arrow.names:
                raise _no_field(str(path), field, file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[field.name]):
                for value in batch.column(0):
                    number += 1
                    yield f"#{number}", _text_of(value.as_py(), f"{path} row {number}", field)
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise BadFile(f"{path} cannot be read, it may be damaged: {str(error).splitlines()[0]}") from None


def _records_of(lines: Iterable[bytes], path: Path, field: _Field) -> Records:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        text = decode_text(line, path, first_line=number)
        try:
            record = parse_json(text, where)
        except BadFile as error:
            raise BadFile(f"{error}; one whole record a line is needed") from None
        if not isinstance(record, dict):
            raise BadFile(f"{where} holds a {type(record).__name__}; an object with the field {field.name!r} is needed")
        if field.name not in record:
            raise _no_field(where, field, record)
        yield f"#{number}", _text_of(record[field.name], where, field)


def _no_field(where: str, field: _Field, known: Iterable[str]) -> BadFile:
    return BadFile(
        f"{where} has no field {field.name!r}; it has: {', '.join(known) or 'none'}; set {field.option} to one"
    )


def _text_of(value: Any, where: str, field: _Field) -> str:
    if not isinstance(value, str | None):
        raise BadFile(f"{where}: the field {field.name!r} holds a {type(value).__name__}; text is needed")
    # JSON can spell lone surrogates, which no encoding can hold: they become U+FFFD
    return without_surrogates(value or "")


def _decompress(path: Path, zstandard: Any) -> Iterator[bytes]:
    """Yield the decompressed pieces of all frames.

    The library's own reader does not tell a file that is cut off from a shorter one.
    """
    decompressor, frame = zstandard.ZstdDecompressor(), None
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            while block:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(block)
                block = frame.unused_data
                frame = None if frame.eof else frame
    if frame:
        raise EOFError("the compressed data end in the middle of a frame")


def _split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []  # of one line; joined once, as a line may be very long
    for piece in pieces:
        first, *others = piece.split(b"\n")
        parts.append(first)
        for begun in others:
            yield b"".join(parts)
            parts = [begun]
    yield b"".join(parts)


def _extra(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise BadValue(f"{path} needs {module.split('.')[0]} to be read: pip install -e '.[corpus]'") from None


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _reader(path: Path) -> Callable[[Path, _Field], Records]:
    suffix = _suffix(path)
    if suffix is None:
        raise BadFile(f"{path} has the unsupported suffix {path.suffix!r}; supported: {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


SUFFIXES: dict[str, Callable[[Path, _Field], Records]] = {
    ".txt": _read_text_file,
    ".md": _read_text_file,
    ".rst": _read_text_file,
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".jsonl.gz": _read_gzip,
    ".json.gz": _read_gzip,
    ".jsonl.zst": _read_zstd,
    ".json.zst": _read_zstd,
    ".parquet": _read_parquet,
}
