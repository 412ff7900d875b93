"""Text that any encoding can hold, and times in words."""

from __future__ import annotations


def without_surrogates(text: str) -> str:
    """Return `text` with lone surrogates, which no encoding can hold, replaced by U+FFFD, as tiktoken does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


UNITS = (("years", 365.25 * 24 * 3600), ("days", 24 * 3600), ("hours", 3600), ("minutes", 60))


def in_words(seconds: float) -> str:
    """Return a time in words, such as "about 6 minutes" or "about 1,200 years"."""
    for unit, length in UNITS:
        if seconds >= 2 * length:
            n = seconds / length
            return f"about {n:,.0f} {unit}" if n < 1e9 else f"about {n:.1e} {unit}"
    return f"about {seconds:.0f} seconds" if seconds >= 10 else "a few seconds"
