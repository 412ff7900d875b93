"""Text that a user types or pipes in: arguments and standard input are UTF-8, whatever the locale says.

In: what Python made of them. Out: the text, or an error in one line, as for a file.
"""

from __future__ import annotations

import os
import sys

from fewshot.base.errors import BadValue
from fewshot.base.files import decode_text


def standard_input() -> str:
    """Return all of standard input; bytes that are not UTF-8 raise `BadFile`, as in a file."""
    data = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if data is None else decode_text(data.read(), "standard input")


def argument(text: str, name: str) -> str:
    """Return an argument as the UTF-8 that was typed, also in a locale that knows ASCII alone; else raises
    `BadValue`.
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadValue(f"{name} is not UTF-8 (byte {error.object[error.start]:#04x}): type it in UTF-8") from None
    except UnicodeEncodeError:  # it does not come from a command line
        return text
