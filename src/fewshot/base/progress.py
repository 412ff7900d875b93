"""A progress bar for work whose size is known in bytes; none is drawn if standard error is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def byte_bar(name: str, *, n_bytes: int | None = None) -> Iterator[Callable[[int], None]]:
    """Draw a bar on standard error inside the block, and yield a function that takes the number of bytes done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=n_bytes)
        yield lambda done: progress.update(task, completed=done)
