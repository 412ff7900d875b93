"""Short lines for people on standard error, so that standard output stays data."""

from __future__ import annotations

import sys


def note(message: str) -> None:
    """Print a line to standard error: a decision and its reason, never progress."""
    print(message, file=sys.stderr, flush=True)
