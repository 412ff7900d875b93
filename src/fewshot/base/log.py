"""One log for people: short lines on standard error, so that standard output stays data."""

from __future__ import annotations

import sys


def note(message: str) -> None:
    """Print one line to standard error: a decision taken and why, never progress."""
    print(message, file=sys.stderr, flush=True)
