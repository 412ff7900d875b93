"""Long texts in pieces that give the same tokens as the whole: reading a piece at a time needs little memory.

In: a text. Out: its pieces. Making tokens of pieces takes a few bytes for each character, however long the document is;
training `tokenizers` on a whole text takes 75 to 95 bytes a character.
"""

from __future__ import annotations

from collections.abc import Iterator

from fewshot.base.text import CUT

PIECE_CHARS = 1 << 15  # a piece is cut at the first place after so many that allows it


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
