"""The files of a folder, with links followed, and counts of what is not read.

In: a folder. Out: its files, sorted by path. It does not know what is in the files.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fewshot.base.errors import BadFile

READ_BEFORE = "files that are read under another name"


def files_of(folder: Path, not_read: Counter[str], seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files below `folder` in the order of their paths, hidden ones left out.

    Links are followed, but not to folders above, which would never end, and no folder is entered and no file given
    twice, whatever its names: the same text would be in training and in validation. `seen` holds the files that were
    given before. What is left out is counted in `not_read`, by the reason.
    Raises `BadFile` if `folder` itself cannot be opened.
    """
    entered: set[Path] = set()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        match _kind(path):
            case "file":
                if is_new(path, seen):
                    yield path
                else:
                    not_read[READ_BEFORE] += 1
            case "folder":
                waiting += _inside(path, folder, entered, not_read)
            case reason:
                not_read[reason] += 1


def is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Return whether the file at `path` is not in `seen`, under any name, and add it there."""
    place = path.stat()
    known = (place.st_dev, place.st_ino)
    if place.st_ino and known in seen:  # some file systems have no numbers
        return False
    seen.add(known)
    return True


def _kind(path: Path) -> str:
    """Return what is at `path`, with links followed: "file", "folder", or the reason why it is neither."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "files or folders that cannot be opened"
    except OSError:  # also a circle of links
        return "links that lead nowhere"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "pipes or devices"


def _inside(path: Path, root: Path, entered: set[Path], not_read: Counter[str]) -> list[Path]:
    """Return the paths in a folder, the last name first; none if the folder was entered before."""
    real = path.resolve()
    if path != root and any(inner.resolve().is_relative_to(real) for inner in (root, path.parent)):
        not_read["links to folders above"] += 1
        return []
    if real in entered:
        not_read["links to folders that are read under another name"] += 1
        return []
    entered.add(real)
    try:
        with os.scandir(path) as entries:
            names = sorted((entry.name for entry in entries if not entry.name.startswith(".")), key=os.fsencode)
    except OSError as error:
        if path == root:
            raise BadFile(f"{path} cannot be opened: {(error.strerror or str(error)).lower()}") from None
        not_read["files or folders that cannot be opened"] += 1
        return []
    return [path / name for name in reversed(names)]
