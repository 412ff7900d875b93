"""A long text file in stretches: the same text, never held as a whole.

In: the path of a file. Out: its text in stretches of some megabytes, which have the same words as the whole. It refuses
what `read_text` refuses, but the text before a damaged place is given first.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from fewshot.base.errors import BadFile
from fewshot.base.files import decode_text
from fewshot.base.text import CUT

LONG_BYTES = 1 << 25  # a file above this comes in stretches
STRETCH_CHARS = 1 << 22  # a stretch ends at the first place after so many that allows it


def stretches_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the stretches of a text file, and whether another follows; together they are `read_text(path)`.

    A text of blanks alone gives none. Raises `BadFile`, after what was good, for bytes that are not UTF-8 text, and
    whatever the system raises.
    """
    waiting: str | None = None  # until it is known whether another follows
    is_first = True
    try:
        for text in _cut(_blocks_of(path)):
            if waiting is not None:
                yield waiting, True
                is_first = False
            waiting = text
    except (BadFile, OSError):  # the disk may be damaged, too
        if waiting is not None:
            yield waiting, False
        raise
    if waiting is not None and not (is_first and waiting.isspace()):
        yield waiting, False


def _cut(blocks: Iterator[str]) -> Iterator[str]:
    """Yield the joined blocks, cut again at places that `CUT` allows; text without such a place is one stretch."""
    parts: list[str] = []
    n_chars = 0
    for block in blocks:
        before = parts[-1][-1:] if parts else ""
        cut = CUT.search(before + block, max(0, STRETCH_CHARS - n_chars) + len(before))
        if cut:
            end = cut.start() - len(before)
            yield "".join([*parts, block[:end]])
            parts, n_chars, block = [], 0, block[end:]
        if block:
            parts.append(block)
            n_chars += len(block)
    if parts:
        yield "".join(parts)


def _blocks_of(path: Path) -> Iterator[str]:
    """Yield the text of a file in blocks of at most `STRETCH_CHARS` characters, none of them empty."""
    n_lines, rest, is_first = 0, b"", True
    with path.open("rb") as file:
        while True:
            read = file.read(STRETCH_CHARS)
            data, rest = rest + read, b""
            try:
                text, n_used = codecs.utf_8_decode(data, "strict", not read)
            except UnicodeDecodeError:
                text, n_used = "\0", 0
            if "\0" in text or (is_first and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))):
                decode_text(data, path, first_line=n_lines + 1)  # says what is wrong
            if is_first and text:
                text, is_first = text.removeprefix("\ufeff"), False
            rest = data[n_used:]
            n_lines += data.count(b"\n", 0, n_used)
            if text:
                yield text
            if not read:
                return
