"""Files: read with clear errors, written whole or not at all, compared by sha256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile, BadValue, NotFinite

MAX_JSON_DEPTH = 500  # brackets inside brackets; anything deeper is no file that a program of this kind writes


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well, and vanishes otherwise.

    Works for a file and for a folder (create it inside the block). The content is on disk (fsync) before it is
    renamed, so that a power cut leaves either the old file or the new one; of two folders it may leave none in the
    instant between two renames. Only a regular file or a folder is replaced: a link is followed, a device or a pipe
    is written to. Raises `BadFile` if a folder is in the place of a file or the other way round.
    """
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        with _copied_into(path) as inside:
            yield inside
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    partial = _partial_folder(path)
    inside = partial / path.name
    try:
        yield inside
        _check_kind(inside, path)
        for file in [inside, *inside.rglob("*")] if inside.is_dir() else [inside]:
            _fsync(file)
        if inside.is_dir() and path.is_dir():
            path.replace(partial / f"{path.name}.old")
        elif path.exists():
            shutil.copymode(path, inside)
        inside.replace(path)
        _fsync(path.parent)
    except OSError as error:
        if str(error.filename or "").startswith(str(partial)):
            error.filename = str(path)  # the name that the caller knows, not the temporary one
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _mode(path: Path) -> int | None:
    """Return kind and permissions of the file at `path`, links followed; None if there is none."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def _copied_into(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose content goes into the device or pipe `path` when the block ends well."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / (path.name or "content")
        yield inside
        if inside.is_dir():
            raise BadFile(f"{path} is a device or a pipe; a folder cannot be written there")
        with inside.open("rb") as content, path.open("wb") as target:
            shutil.copyfileobj(content, target)


def _partial_folder(path: Path, *, named: Path | None = None) -> Path:
    """Return a new temporary folder beside `path`; errors name the path `named`, or `path` if that is not given."""
    named = named or path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        blocked = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if blocked is not None:
            raise BadFile(f"{named} cannot be written: {blocked} is a file, not a folder") from None
        error.filename = str(named)
        raise


def check_is_free(path: Path) -> None:
    """Raise `BadValue` if there is a file at `path`, and whatever `check_writable` raises."""
    mode = _mode(path)
    if mode is not None and stat.S_ISREG(mode):
        raise BadValue(f"{path} exists: give another name, or delete it first")
    check_writable(path)


def is_litter(entry: Path) -> bool:
    """Return whether this is the name of a half-written file or folder, left behind by a killed process."""
    return re.fullmatch(r"\..*\.partial", entry.name, re.DOTALL) is not None


def remove_litter(folder: Path) -> None:
    """Delete half-written files of killed processes in `folder` and its folders; the caller holds `folder`."""
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    for place in [folder, *(entry for entry in inside if not is_litter(entry))]:
        for litter in filter(is_litter, place.iterdir()):
            shutil.rmtree(litter, ignore_errors=True)


def _check_kind(inside: Path, path: Path) -> None:
    if path.is_dir() and not inside.is_dir():
        raise BadFile(f"{path} is a folder; give the name of a file")
    if inside.is_dir() and path.exists() and not path.is_dir():
        raise BadFile(f"{path} is a file; give the name of a folder")


def check_writable(path: Path) -> None:
    """Raise now what `written_whole(path)` would raise at the end of long work; nothing is left behind."""
    mode = _mode(path)
    if mode is None or stat.S_ISREG(mode):
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        nearest = next((parent for parent in target.parents if parent.exists()), target.parent)
        shutil.rmtree(_partial_folder(target if nearest == target.parent else nearest / target.name, named=path))
    elif stat.S_ISDIR(mode):
        raise BadFile(f"{path} is a folder; give the name of a file")


def usual_mode() -> int:
    """Return the permissions that a new file gets by the user's umask."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _fsync(path: Path) -> None:
    """Wait until a file or folder is on disk; a folder only where the system can (Windows cannot)."""
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" and path.is_file() else os.O_RDONLY)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; a number that is not finite raises `NotFinite`."""
    write_text(path, to_json(value, where=path, indent=2) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, whole or not at all; a number that is not finite raises `NotFinite`."""
    write_text(path, "".join(f"{to_json(row, where=path)}\n" for row in rows))


def to_json(value: Any, *, where: object, indent: int | None = None) -> str:
    """Return `value` as JSON; NaN and infinities, which JSON cannot hold, raise `NotFinite` that names `where`."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        if "float" not in str(error):
            raise
        raise NotFinite(f"{where}: {_not_finite(value)} is not a finite number; nothing was written") from None


def _not_finite(value: Any, place: str = "") -> str:
    """Return the place and value of the first number in nested values that is not finite; empty if all are."""
    if isinstance(value, float):
        return "" if value - value == 0 else f"{place.lstrip('.')} = {value}" if place else str(value)
    if isinstance(value, dict):
        return next(filter(None, (_not_finite(item, f"{place}.{key}") for key, item in value.items())), "")
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_not_finite(item, f"{place}[{i}]") for i, item in enumerate(value))), "")
    return ""


def read_text(path: Path) -> str:
    """Return the file's text; one that is missing, binary or not UTF-8 raises `BadFile`."""
    return decode_text(read_bytes(path), path)


def decode_text(data: bytes, name: object, *, first_line: int = 1) -> str:
    """Return bytes as UTF-8 text; other bytes raise `BadFile` that says what they seem to be and how to convert them.

    `name` tells in messages what the bytes are: the path of their file, in which they begin at `first_line`, or words.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadFile(f"{name} is UTF-16: convert it, for example with: {_iconv('utf-16', name)}")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + first_line
        raise BadFile(f"{name} is a binary file (a zero byte in line {line}); text in UTF-8 is needed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + first_line
        wrong = f"{name} is not UTF-8 (byte {data[error.start]:#04x} in line {line})"
        if len(data.decode("utf-8", errors="ignore").encode()) > len(data.decode("ascii", errors="ignore")):
            raise BadFile(
                f"{wrong}, but other parts of it are: repair it, or drop the wrong bytes with: {_iconv('', name)}"
            ) from None
        encoding = "cp1252" if any(byte in data for byte in map(bytes, zip(range(0x80, 0xA0)))) else "latin1"
        raise BadFile(f"{wrong}: convert it, for example with: {_iconv(encoding, name)}") from None


def _iconv(encoding: str, name: object) -> str:
    """Return a shell command that turns a file into UTF-8; without an encoding, one that drops what is not UTF-8."""
    file = f" {shlex.quote(name.name)}" if isinstance(name, Path) else ""
    return f"iconv {f'-f {encoding}' if encoding else '-c -f utf-8'} -t utf-8{file}"


def read_bytes(path: Path) -> bytes:
    """Return the file's bytes; a missing file or a folder raises `BadFile`."""
    if path.is_dir():
        raise BadFile(f"{path} is a folder; a file is needed")
    if not path.exists():
        raise BadFile(f"{path} does not exist")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Return the file's JSON value; anything that does not parse raises `BadFile` with the line."""
    return parse_json(read_text(path), path)


def parse_json(text: str, where: object) -> Any:
    """Return the JSON value in `text`; anything that does not parse raises `BadFile` that names `where`.

    All JSON is read here: values nested too deeply and numbers too long for Python are refused like bad syntax.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f" in line {error.lineno}" if "\n" in text.rstrip("\n") or "line" not in str(where) else ""
        raise BadFile(f"{where} is not JSON: {error.msg}{place}") from None
    except RecursionError:
        raise BadFile(f"{where} is not usable JSON: it is nested too deeply") from None
    except ValueError:  # whole numbers of more than 4,300 digits
        raise BadFile(f"{where} is not usable JSON: it holds a number of thousands of digits") from None
    if _deeper_than(value, MAX_JSON_DEPTH):
        raise BadFile(f"{where} is not usable JSON: it is nested more than {MAX_JSON_DEPTH} deep")
    return value


def _deeper_than(value: Any, depth: int) -> bool:
    """Return whether lists and objects are nested deeper than `depth`; level by level, so that nothing recurses."""
    level = [value]
    for _ in range(depth):
        level = [
            item
            for holder in level
            if isinstance(holder, (dict, list))
            for item in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True


def sha256_file(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
