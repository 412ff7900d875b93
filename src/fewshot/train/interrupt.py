"""Ctrl-C between steps: the first asks the loop to stop when its step is whole, the second stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether someone has asked to stop."""

    asked = False


@contextlib.contextmanager
def polite_stop() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM inside the block into `asked`; in other threads signals stay as they are."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
