"""Stop between steps: the first signal asks a loop to stop after its current step, the second stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # HUP: no Windows
SAME_SECONDS = 0.3  # a terminal and a parent process may both pass on what was one request


class StopRequest:
    """Whether someone has asked to stop."""

    asked = False


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt inside the block, so that half-written files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    deadly = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def polite_stop(after: str = "this step") -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGHUP inside the block into `asked`; a later one raises KeyboardInterrupt.

    The first prints at once, on standard error, that the program stops `after` something. Signals that were ignored, as
    under nohup, stay ignored; in other threads all stay as they are.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    asked_at = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if request.asked:
            if time.monotonic() - asked_at > SAME_SECONDS:
                raise KeyboardInterrupt
            return
        request.asked, asked_at = True, time.monotonic()
        with contextlib.suppress(OSError):  # a handler must not print: what it interrupts may be printing
            os.write(2, f"\nstopping after {after}; press Ctrl-C again to stop at once\n".encode())

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup, background jobs
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield request
    finally:
        if request.asked:  # the same request may still be on its way
            time.sleep(max(0.0, asked_at + SAME_SECONDS - time.monotonic()))
        for number, handler in before.items():
            signal.signal(number, handler)
