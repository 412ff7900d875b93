"""Text that lies elsewhere: hf://, s3://, https:// and whatever else fsspec opens. In: an address. Out: a local path.

What is fetched is kept in the cache of `base/machine.py`, as text is read several times. Files are there when they are
whole: a fetch that was stopped goes on with those that are missing. Knows nothing of what is in a file.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fewshot.base.errors import BadFile, BadValue, FewshotError, check
from fewshot.base.files import remove_litter, written_whole
from fewshot.base.lock import hold
from fewshot.base.log import note
from fewshot.base.machine import cache_folder

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
HERE = ("file", "local")  # not elsewhere
NOT_IN_NAMES = re.compile(r'[<>:"|?*\\\x00-\x1f]')  # on some system
CONTENT, WHOLE = "content", "whole"  # what was fetched, and the sign that nothing is missing
SILENCE = 60  # seconds in which a server says nothing

_told: set[str] = set()  # addresses whose text this process has fetched, or has said to be there


def is_remote(path: Path | str) -> bool:
    """Return whether a text's path is an address, such as s3://bucket/books."""
    return isinstance(path, str) and ADDRESS.fullmatch(path) is not None


def kept_at(address: str) -> Path:
    """Return where the text of an address is kept, fetched or not."""
    address = address.rstrip("/")
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return (
        cache_folder()
        / "text"
        / digest
        / CONTENT
        / _safe(PurePosixPath(address.partition("://")[2].split("?")[0]).name)
    )


def fetch(address: str, *, wanted: Callable[[str], bool], say: Callable[[str], None] = note) -> Path:
    """Return the local copy of a remote file or folder, fetched now unless it is kept.

    Of a folder the files with `wanted` names are fetched, hidden ones are not. Raises `BadValue` if what opens such
    addresses is not installed, `BadFile` if there is nothing that is wanted, or it cannot be read.
    """
    match = ADDRESS.fullmatch(address)
    assert match is not None, "is_remote says so"
    check(match[1].lower() not in HERE, f"{address} is on this machine: give its path")
    check(match[2].strip("/") != "", f"{address} names nothing: an address is such as s3://bucket/books")
    target = kept_at(address)
    place = target.parent.parent
    if (place / WHOLE).is_file():
        if address not in _told:
            say(f"{address} was fetched before, into {place}: delete that folder to fetch it again")
        _told.add(address)
        return target
    with hold(place, doing=f"fetching {address}"):
        remove_litter(place)
        try:
            _copy(address, target, wanted, say)
        except FewshotError:
            raise
        except ImportError as error:
            raise BadValue(f"{address} cannot be opened: {error}") from None
        except FileNotFoundError:
            raise BadFile(f"{address} does not exist") from None
        except Exception as error:  # noqa: BLE001 - of libraries that are not ours, and that may raise anything
            said = " ".join(str(error).split()) or type(error).__name__
            raise BadFile(f"{address} cannot be fetched: {said}; whole files stay, try again") from None
        (place / WHOLE).touch()
    _told.add(address)
    return target


def _copy(address: str, target: Path, wanted: Callable[[str], bool], say: Callable[[str], None]) -> None:
    """Copy what is at an address, file by file; those that are there are left as they are."""
    url_to_fs = importlib.import_module("fsspec.core").url_to_fs  # torch brings fsspec
    system, root = url_to_fs(address, **_options(address))
    files = list(_files(system, root, target, wanted))
    missing = [(source, place) for source, place in files if not place.is_file()]
    say(f"{address}: fetching {len(missing):,} of {len(files):,} files into {target.parent.parent}")
    for source, place in missing:
        with written_whole(place) as partial:
            system.get_file(source, str(partial))


def _options(address: str) -> dict[str, Any]:
    """Return what opens an address as a large file needs it: a limit for silence, none for the whole."""
    if not address.lower().startswith("http"):
        return {}
    timeout = importlib.import_module("aiohttp").ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": timeout}}


def _files(system: Any, root: str, target: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    """Yield the wanted files at an address with their local places; raises BadFile if there are none."""
    if wanted(target.name) and (system.isfile(root) or not system.isdir(root)):
        if not system.exists(root):
            raise FileNotFoundError(root)
        yield root, target
        return
    places = []
    for source in sorted(system.find(root)):
        parts = PurePosixPath(source).relative_to(PurePosixPath(root)).parts
        if parts and wanted(parts[-1]) and not any(part.startswith(".") for part in parts):
            places.append((source, target.joinpath(*map(_safe, parts))))
    if not places and not system.exists(root):
        raise FileNotFoundError(root)
    if not places:
        raise BadFile(f"{root} holds no file of text with a suffix that is read")
    yield from places


def _safe(name: str) -> str:
    """Return a name that every system takes and that stays in its folder."""
    safe = NOT_IN_NAMES.sub("_", name)
    return "text" if safe.strip(". ") == "" else safe
