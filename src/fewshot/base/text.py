"""Text that any encoding can hold."""

from __future__ import annotations


def without_surrogates(text: str) -> str:
    """Return `text` with lone surrogates, which no encoding can hold, replaced by U+FFFD, as tiktoken does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
