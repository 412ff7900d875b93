"""One writer at a time: a lock on a folder, which the system releases when its process ends, however it ends.

In: a folder. Out: a block of code in which no other process holds it. Knows nothing of what is written there.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import filelock

from fewshot.base.errors import FolderInUse
from fewshot.base.files import is_litter

LOCK = ".lock"  # in the folder; it stays there, as removing it would let two processes lock two files of one name


@contextlib.contextmanager
def hold(folder: Path, *, doing: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold `folder` alone inside the block, and make it if it is not there; `doing` is told to whoever else wants it.

    Raises `FolderInUse`, with the other process and its machine, if it is still held after `wait_seconds`. Long work
    holds its folder throughout and does not wait; short writes wait for each other.
    """
    path = folder / LOCK
    lock = filelock.FileLock(path, timeout=wait_seconds, poll_interval=0.02, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise FolderInUse(f"{folder} is in use by {_holder(path)}: wait until it is done, or stop it") from None
    except OSError as error:
        error.filename = str(folder)  # a user does not know of the lock
        raise
    try:
        with contextlib.suppress(OSError):  # a full disk: others then do not learn who holds it
            path.write_text(f"process {os.getpid()} on {platform.node()} ({doing})", encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"


def is_empty(folder: Path) -> bool:
    """Return whether `folder` is not there or holds nothing but a lock and half-written files."""
    return not folder.exists() or all(entry.name == LOCK or is_litter(entry) for entry in folder.iterdir())
