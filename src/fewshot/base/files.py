"""Files: read with clear errors, written whole or not at all, recognised by their sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends well, and vanishes otherwise.

    Works for a file and for a folder (create it inside the block). The content is on disk (fsync) before it is
    renamed, so that a power cut leaves either the old file or the new one; of two folders it may leave none in the
    instant between two renames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    inside = partial / path.name
    try:
        yield inside
        for file in [inside, *inside.rglob("*")] if inside.is_dir() else [inside]:
            _fsync(file)
        if inside.is_dir() and path.is_dir():
            path.replace(partial / f"{path.name}.old")
        inside.replace(path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """The file's text; one that is missing, binary or not UTF-8 raises `BadFile`."""
    data = read_bytes(path)
    if b"\0" in data[:8192]:
        raise BadFile(f"{path} is a binary file; text in UTF-8 is needed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadFile(
            f"{path} is not UTF-8 (byte {data[error.start]:#04x} in line {line}): convert it, "
            f"for example with: iconv -f latin1 -t utf-8 {path.name}"
        ) from None


def read_bytes(path: Path) -> bytes:
    """The file's bytes; a missing one or a folder raises `BadFile`."""
    if path.is_dir():
        raise BadFile(f"{path} is a folder; a file is needed")
    if not path.exists():
        raise BadFile(f"{path} does not exist")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """The file's JSON value; anything that does not parse raises `BadFile` with the line."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadFile(f"{path} is not JSON: {error.msg} in line {error.lineno}") from None


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
