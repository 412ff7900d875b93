"""A bar for people over work whose size is known in bytes. It stays away where standard error is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def byte_bar(name: str, *, n_bytes: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield what is to be told how many bytes were done, of `n_bytes`; the bar on standard error is gone at the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=n_bytes)
        yield lambda done: progress.update(task, completed=done)
