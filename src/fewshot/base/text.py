"""Text that any encoding can hold, and where it may be cut without changing its words; times in words."""

from __future__ import annotations

import re

# In GPT-2's split a word may begin with a blank, but none reaches from something else into a blank; blanks before a
# word belong together. U+001C to U+001F and U+0085 are blanks to Python, and not to every regular expression.
CUT = re.compile(r"(?<=\S)[^\S\x1c-\x1f\x85]")


def utf8_size(text: str) -> int:
    """Return the bytes of `text` in UTF-8, without making them where all is ASCII."""
    return len(text) if text.isascii() else len(text.encode())


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
