"""Text from the command line and from standard input, read as UTF-8 whatever the locale is.

In: an argument or the stream, as Python decoded it. Out: the text, or an error in one line, as for a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from fewshot.base.errors import BadValue
from fewshot.base.files import decode_text


def standard_input() -> str:
    """Return all of standard input; bytes that are not UTF-8 raise `BadFile`, as in a file."""
    data = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if data is None else decode_text(data.read(), "standard input")


def input_lines() -> Iterator[str]:
    """Yield the lines of standard input as they come, without their ends; bytes that are not UTF-8 raise `BadFile`."""
    for number, line in enumerate(getattr(sys.stdin, "buffer", sys.stdin), start=1):
        text = line if isinstance(line, str) else decode_text(line, "standard input", first_line=number)
        yield text.rstrip("\r\n")


def argument(text: str, name: str) -> str:
    """Return an argument as the UTF-8 that was typed, even in an ASCII locale.

    Raises `BadValue` if it is not UTF-8.
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadValue(f"{name} is not UTF-8 (byte {error.object[error.start]:#04x}): type it in UTF-8") from None
    except UnicodeEncodeError:  # a text with lone surrogates, which no command line can hold
        return text
