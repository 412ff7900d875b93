"""The error tree. Everything a user can cause raises from `FewshotError`; the command line prints it in one line.

FewshotError              exit code 2
├── BadValue              a value that is not allowed: names it, what is allowed, the way out
│   └── UnknownName       a name that is not in a table: names the nearest one
├── BadFile               a file that is missing, empty, binary, wrongly encoded or damaged
│   └── DamagedCheckpoint a checkpoint whose files are absent or differ from their sha256
├── ContextTooLong        more tokens than the model's n_ctx
├── NotFinite             a NaN or an infinity where a number is needed: in a result, a file, a model's output
│   └── Diverged          training whose loss, gradient or weights are not finite any more
├── FolderInUse           a folder that another process is writing to
├── KernelUnsupported     a named kernel that cannot compute what is asked, with its reason
└── ExportDiffers         an export from which its own program computes something else
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class FewshotError(Exception):
    """Root of all errors that a user can cause and mend."""


class BadValue(FewshotError):
    """A value that is not allowed."""


class UnknownName(BadValue):
    """A name that is not in a table of known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}{_way_out(name, sorted(known))}")


class BadFile(FewshotError):
    """A file that is missing, empty, binary, wrongly encoded or damaged."""


class DamagedCheckpoint(BadFile):
    """A checkpoint whose files are absent or differ from their recorded sha256."""


class ContextTooLong(FewshotError):
    """More tokens than the model's context holds."""

    def __init__(self, n_tokens: int, n_ctx: int, what: str = "the prompt", *, way_out: str = "shorten it") -> None:
        super().__init__(f"{what} has {n_tokens:,} tokens, the model's context holds {n_ctx:,}: {way_out}")


class NotFinite(FewshotError):
    """A NaN or an infinity where a number is needed."""


class Diverged(NotFinite):
    """Training whose loss, gradient or weights are not finite any more."""


class FolderInUse(FewshotError):
    """A folder that another process is writing to."""


class KernelUnsupported(FewshotError):
    """A kernel that was chosen by name and cannot compute what is needed."""


class ExportDiffers(FewshotError):
    """An export from which the program that it is for computes something else than the model."""


def _way_out(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    nearest = f"; nearest: {near[0]!r}" if near else ""
    names = ", ".join(known[:24]) + (", ..." if len(known) > 24 else "")
    return f"{nearest}; allowed: {names}" if known else nearest


def check(condition: bool, message: str) -> None:
    """Raise `BadValue` with `message` unless `condition` holds; for `__post_init__` of configurations."""
    if not condition:
        raise BadValue(message)


def check_counts(config: object, *names: str, prefix: str = "") -> None:
    """Raise `BadValue` unless each of these fields is at least 1; `prefix` goes before their names in the message."""
    for name in names:
        check(getattr(config, name) >= 1, f"{prefix}{name} is {getattr(config, name)}, must be at least 1")


def look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`; an unknown name raises `UnknownName` with the nearest one."""
    if name not in table:
        raise UnknownName(kind, name, table)
    return table[name]
