"""Long texts in pieces that give the same tokens as the whole: reading a piece at a time needs little memory.

In: a text. Out: its pieces. Making tokens of pieces takes a few bytes for each character, however long the document is;
training `tokenizers` on a whole text takes 75 to 95 bytes a character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE_CHARS = 1 << 15  # a piece is cut at the first place after so many that allows it
# In GPT-2's split a word may begin with a blank, but none reaches from something else into a blank; blanks before a
# word belong together. U+001C to U+001F and U+0085 are blanks to Python, and not to every regular expression.
CUT = re.compile(r"(?<=\S)[^\S\x1c-\x1f\x85]")


def pieces(text: str) -> Iterator[str]:
    """Yield `text` in pieces, each of which (but the first) begins with a blank that follows another character.

    Text without such a place is one piece.
    """
    start = 0
    while start < len(text):
        cut = CUT.search(text, start + PIECE_CHARS)
        end = cut.start() if cut else len(text)
        yield text[start:end]
        start = end
