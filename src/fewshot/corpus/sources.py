"""Files and folders become documents.

In: paths of text, JSON lines and Parquet, plain or compressed. Out: a stream of `Document`, one file or one record
each. It does not know whether a text is good, repeated or needed: it only refuses what it cannot read.
"""

from __future__ import annotations

import gzip
import importlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import read_text
from fewshot.base.log import note
from fewshot.base.text import without_surrogates
from fewshot.corpus.document import Document

Records = Iterator[tuple[str, str]]  # id and text
MAX_SKIP_LINES = 10  # per folder; the rest is counted
BLOCK_BYTES = 1 << 16  # of compressed input held at a time


def read_documents(
    paths: Iterable[Path],
    *,
    text_field: str = "text",
    source: str = "text",
    on_skip: Callable[[str], None] = note,
) -> Iterator[Document]:
    """The documents of files and folders, in the order given; folders recursively and sorted by path.

    One document a text file; one a line of .jsonl or .json and one a row of .parquet, from `text_field`.
    Blank records are left out. A path named here that cannot be read raises `BadFile`; a file found in a folder is
    skipped with a line to `on_skip`, and a folder without any document raises. Records are streamed.
    """
    paths = list(paths)
    for path in paths:  # all of them first: a misspelt last one must not wait for hours of reading
        if not path.exists():
            raise BadFile(f"{path} does not exist")
        if path.is_file():
            _reader(path)
    for path in paths:
        records = _read_folder(path, text_field, on_skip) if path.is_dir() else _read_file(path, text_field)
        for record_id, text in records:
            yield Document(id=record_id, text=text, source=source)


def _read_folder(folder: Path, text_field: str, on_skip: Callable[[str], None]) -> Records:
    visible = [path for path in sorted(folder.rglob("*")) if not _is_hidden(path.relative_to(folder))]
    files = [path for path in visible if path.is_file()]
    known = [path for path in files if _suffix(path)]
    if len(known) < len(files):
        on_skip(f"{folder}: {len(files) - len(known):,} files of other kinds are not read")
    n_documents = n_skipped = 0
    for path in known:
        n_before = n_documents
        try:
            for record in _read_file(path, text_field):
                n_documents += 1
                yield record
        except BadFile as error:
            n_skipped += 1
            if n_skipped <= MAX_SKIP_LINES:
                n_kept = n_documents - n_before
                on_skip(f"skipped{f' after {n_kept:,} documents' if n_kept else ''}: {error}")
    if n_skipped > MAX_SKIP_LINES:
        on_skip(f"{folder}: {n_skipped:,} files were skipped, the first {MAX_SKIP_LINES} are shown above")
    if not n_documents:
        raise BadFile(f"{folder} holds no readable document ({len(files):,} files); readable: {', '.join(SUFFIXES)}")


def _read_file(path: Path, text_field: str) -> Records:
    n_documents = 0
    try:
        if path.stat().st_size == 0:
            raise BadFile(f"{path} is empty")
        for record_id, text in _reader(path)(path, text_field):
            if text and not text.isspace():
                n_documents += 1
                yield record_id, text
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{path} cannot be read, it may be damaged: {error}") from None
    if not n_documents:
        raise BadFile(f"{path} holds no text, only blanks")


def _read_text_file(path: Path, text_field: str) -> Records:
    yield str(path), read_text(path)


def _read_json_lines(path: Path, text_field: str) -> Records:
    with path.open("rb") as lines:
        yield from _records_of(lines, path, text_field)


def _read_gzip(path: Path, text_field: str) -> Records:
    with gzip.open(path, "rb") as lines:
        yield from _records_of(lines, path, text_field)


def _read_zstd(path: Path, text_field: str) -> Records:
    zstandard = _extra("zstandard", path)
    try:
        yield from _records_of(_split_lines(_decompress(path, zstandard)), path, text_field)
    except zstandard.ZstdError as error:
        raise BadFile(f"{path} cannot be read, it may be damaged: {error}") from None


def _read_parquet(path: Path, text_field: str) -> Records:
    parquet, arrow = _extra("pyarrow.parquet", path), _extra("pyarrow", path)
    try:
        with parquet.ParquetFile(path) as file:
            if text_field not in file.schema_arrow.names:
                raise _no_field(str(path), text_field, file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=[text_field]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield f"{path}#{number}", _text_of(value, f"{path} row {number}", text_field)
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise BadFile(f"{path} cannot be read, it may be damaged: {str(error).splitlines()[0]}") from None


def _records_of(lines: Iterable[bytes], path: Path, text_field: str) -> Records:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise BadFile(f"{where} is not UTF-8") from None
        except json.JSONDecodeError as error:
            raise BadFile(f"{where} is not JSON ({error.msg}); one whole record a line is needed") from None
        except RecursionError:
            raise BadFile(f"{where} is nested too deeply") from None
        if not isinstance(record, dict):
            raise BadFile(f"{where} holds a {type(record).__name__}; an object with the field {text_field!r} is needed")
        if text_field not in record:
            raise _no_field(where, text_field, record)
        yield f"{path}#{number}", _text_of(record[text_field], where, text_field)


def _no_field(where: str, text_field: str, known: Iterable[str]) -> BadFile:
    return BadFile(f"{where} has no field {text_field!r}; it has: {', '.join(known) or 'none'}; set text_field to one")


def _text_of(value: Any, where: str, text_field: str) -> str:
    if not isinstance(value, str | None):
        raise BadFile(f"{where}: the field {text_field!r} holds a {type(value).__name__}; text is needed")
    # JSON can spell lone surrogates, which no encoding can hold: they become U+FFFD
    return without_surrogates(value or "")


def _decompress(path: Path, zstandard: Any) -> Iterator[bytes]:
    """The decompressed pieces of all frames. The library's own reader takes a clipped file for a short one."""
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
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    yield rest


def _extra(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise BadValue(f"{path} needs {module.split('.')[0]} to be read: pip install -e '.[corpus]'") from None


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _reader(path: Path) -> Callable[[Path, str], Records]:
    suffix = _suffix(path)
    if suffix is None:
        raise BadFile(f"{path} is of an unknown kind {path.suffix!r}; readable: {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


SUFFIXES: dict[str, Callable[[Path, str], Records]] = {
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
