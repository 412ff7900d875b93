"""Files of examples. In: JSON lines, plain or gzipped. Out: rows, or examples as released with the GPT-3 paper."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from fewshot.base.errors import BadFile
from fewshot.base.files import read_bytes, read_text
from fewshot.evaluate.task import Example


def read_rows(path: Path, *fields: str) -> list[dict[str, str]]:
    """The rows of a .jsonl or .jsonl.gz file, each with text in all `fields`; raises BadFile with the line."""
    text = _unzipped(path) if path.suffix == ".gz" else read_text(path)
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand inside a JSON string
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadFile(f"{path} line {number} is not JSON: {error.msg}") from None
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
            raise BadFile(f"{path} line {number} must be an object with text in {', '.join(map(repr, fields))}")
        rows.append(row)
    if not rows:
        raise BadFile(f"{path} holds no examples")
    return rows


def read_released(path: Path) -> list[Example]:
    """Examples of a file as released with the paper: {"context": ..., "completion": ...} in every line.

    Source: github.com/openai/gpt-3, folder data. The id is the context without its line breaks.
    """
    rows = read_rows(path, "context", "completion")
    return [Example(row["context"].strip(), row["context"], (row["completion"],)) for row in rows]


def released_file(folder: Path, name: str) -> Path | None:
    """`name` or `name`.gz in the folder; None if it has neither. A folder that does not exist raises BadFile."""
    if not folder.is_dir():
        raise BadFile(f"{folder} is not a folder: give the one that holds {name}")
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def _unzipped(path: Path) -> str:
    try:
        return gzip.decompress(read_bytes(path)).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadFile(f"{path} is damaged: {error}") from None
