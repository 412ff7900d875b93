"""Text on disk. In: files and folders. Out: documents, one at a time. Refuses to know tokens and quality.

.txt .md .rst hold one document each, .jsonl (and C4's .json) one record a line, also as .gz or .zst, .parquet one
record a row. What a user names must be readable; what merely lies in a folder may be skipped, and that is said.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import read_text
from fewshot.base.log import note
from fewshot.corpus.document import Document

SKIPS_SHOWN = 10

Reader = Callable[[Path, str], Iterator[tuple[str, str]]]  # (path, field) -> (id, text)


def read_documents(
    paths: Iterable[Path], *, text_field: str = "text", source: str = "text", on_skip: Callable[[str], None] = note
) -> Iterator[Document]:
    """Documents of these files and folders, folders recursively and in the order of their paths.

    Raises BadFile for a path that is missing, empty, binary, not UTF-8 or of an unknown kind. Inside a folder such a
    file is skipped and `on_skip` told why (ten times, then a count); a folder without any document raises BadFile.
    """
    for path in paths:
        if path.is_dir():
            yield from _read_folder(path, text_field, source, on_skip)
        elif not path.exists():
            raise BadFile(f"{path} does not exist")
        else:
            yield from _read_file(path, text_field, source)


def _read_folder(folder: Path, field: str, source: str, on_skip: Callable[[str], None]) -> Iterator[Document]:
    n_documents, skipped = 0, 0
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or _reader(path) is None:
            continue
        try:
            for document in _read_file(path, field, source):
                n_documents += 1
                yield document
        except BadFile as error:
            skipped += 1
            if skipped <= SKIPS_SHOWN:
                on_skip(f"skipped: {error}")
    if skipped > SKIPS_SHOWN:
        on_skip(f"skipped {skipped - SKIPS_SHOWN} more files of {folder}")
    if n_documents == 0:
        raise BadFile(f"{folder} holds no text; readable are {', '.join(READERS)}")


def _read_file(path: Path, field: str, source: str) -> Iterator[Document]:
    reader = _reader(path)
    if reader is None:
        raise BadFile(f"{path} is of an unknown kind; readable are {', '.join(READERS)}")
    n_documents = 0
    for name, text in reader(path, field):
        if text.strip():
            n_documents += 1
            yield Document(id=name, text=text, source=source)
    if n_documents == 0:
        raise BadFile(f"{path} is empty: it holds no text")


def _reader(path: Path) -> Reader | None:
    name = path.name.lower()
    return next((reader for suffix, reader in READERS.items() if name.endswith(suffix)), None)


def _read_plain(path: Path, field: str) -> Iterator[tuple[str, str]]:
    yield str(path), read_text(path)


def _read_lines(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Records of a .jsonl file, plain or packed; only one line is held at a time."""
    try:
        with _unpacked(path) as file:
            for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8"), start=1):
                if line.strip():
                    yield f"{path}#{number}", _text_of(_parsed(path, number, line), field, f"{path}, line {number}")
    except UnicodeDecodeError:
        raise BadFile(f"{path} is not UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise BadFile(f"{path} is damaged: it cannot be unpacked") from None


def _unpacked(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path)
    if not path.name.lower().endswith(".zst"):
        return path.open("rb")
    try:
        import zstandard
    except ModuleNotFoundError:
        raise BadValue(f"{path} needs zstandard: pip install 'fewshot[corpus]'") from None
    return io.BufferedReader(_Zstd(zstandard.open(path, "rb"), path, zstandard.ZstdError))


class _Zstd(io.RawIOBase):
    """zstandard's reader with its own error turned into ours."""

    def __init__(self, file: IO[bytes], path: Path, error: type[Exception]) -> None:
        self.file, self.path, self.error = file, path, error

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer."""
        try:
            data = self.file.read(len(buffer))
        except self.error:
            raise BadFile(f"{self.path} is damaged: it cannot be unpacked") from None
        buffer[: len(data)] = data
        return len(data)


def _parsed(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadFile(f"{path}, line {number} is not JSON: {error.msg}") from None


def _text_of(record: object, field: str, where: str) -> str:
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        found = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise BadFile(f"{where} has no text field {field!r}; it has: {found}")
    return record[field]


def _read_parquet(path: Path, field: str) -> Iterator[tuple[str, str]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise BadValue(f"{path} needs pyarrow: pip install 'fewshot[corpus]'") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        if field not in file.schema_arrow.names:
            raise BadFile(f"{path} has no text field {field!r}; it has: {', '.join(file.schema_arrow.names)}")
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            for text in batch.column(0).to_pylist():
                number += 1
                yield f"{path}#{number}", text or ""
    except pyarrow.ArrowInvalid:
        raise BadFile(f"{path} is damaged: it is not a Parquet file") from None


READERS: dict[str, Reader] = {
    ".txt": _read_plain,
    ".md": _read_plain,
    ".rst": _read_plain,
    ".jsonl": _read_lines,
    ".jsonl.gz": _read_lines,
    ".jsonl.zst": _read_lines,
    ".json": _read_lines,
    ".json.gz": _read_lines,
    ".json.zst": _read_lines,
    ".parquet": _read_parquet,
}
