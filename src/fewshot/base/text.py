"""Text that any encoding can hold, and where it may be cut without changing its words."""

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
