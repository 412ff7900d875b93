"""Text that lies elsewhere: hf://, s3://, https:// and whatever else fsspec opens. In: an address. Out: a local path.

What is fetched is kept in the cache of `base/machine.py`, as text is read several times. A file is there when it is
whole; a fetch that was stopped goes on with the files that are missing. Knows nothing of what is in a file.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import written_whole
from fewshot.base.lock import hold
from fewshot.base.log import note
from fewshot.base.machine import cache_folder

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
WHOLE = "whole"  # beside what was fetched: nothing is missing

_fetched: set[str] = set()  # by this process, or told to be there


def is_remote(path: Path | str) -> bool:
    """Return whether a text's path is an address, such as s3://bucket/books."""
    return isinstance(path, str) and ADDRESS.match(path) is not None


def kept_at(address: str) -> Path:
    """Return where the text of an address is kept, fetched or not."""
    name = PurePosixPath(address.partition("://")[2].split("?")[0]).name or "text"
    return cache_folder() / "text" / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def fetch(address: str, *, say: Callable[[str], None] = note) -> Path:
    """Return the local copy of a remote file or folder, fetched now unless it is kept.

    Raises `BadValue` if what opens such addresses is not installed, `BadFile` if there is nothing or it cannot be read.
    """
    target = kept_at(address)
    marker = target.parent / WHOLE
    if marker.is_file():
        if address not in _fetched:
            say(f"{address} was fetched before, into {target.parent}: delete that folder to fetch it again")
        _fetched.add(address)
        return target
    with hold(target.parent, doing=f"fetching {address}"):
        try:
            _copy(address, target, say)
        except ImportError as error:
            raise BadValue(f"{address} cannot be opened: {error}") from None
        except FileNotFoundError:
            raise BadFile(f"{address} does not exist") from None
        except (OSError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise BadFile(f"{address} cannot be fetched: {said}; what is fetched stays, try again") from None
        marker.touch()
    _fetched.add(address)
    return target


def _copy(address: str, target: Path, say: Callable[[str], None]) -> None:
    """Copy what is at an address, file by file; those that are there are left as they are."""
    url_to_fs = importlib.import_module("fsspec.core").url_to_fs  # torch brings fsspec
    system, root = url_to_fs(address)
    files = list(_files(system, root, target))
    if not files:
        raise FileNotFoundError(address)
    missing = [(source, place) for source, place in files if not place.is_file()]
    say(f"{address}: fetching {len(missing):,} of {len(files):,} files into {target.parent}")
    for source, place in missing:
        with written_whole(place) as partial:
            system.get_file(source, str(partial))


def _files(system: Any, root: str, target: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files at an address with their local places; a name that leads out of the folder raises `BadFile`."""
    if not system.isdir(root):
        if system.exists(root):
            yield root, target
        return
    for source in sorted(system.find(root)):
        relative = PurePosixPath(source).relative_to(PurePosixPath(root))
        if ".." in relative.parts:
            raise BadFile(f"{source} leads out of its folder: it is not fetched")
        yield source, target / relative
