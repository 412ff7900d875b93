"""A document, which is what all readers of text make.

In: nothing. Out: `Document`. It does not know how the text was read, nor what it is used for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text, or a stretch of a long one, with the place it came from."""

    id: str  # where it comes from: the path, or path#record number, counted from 1
    text: str  # valid Unicode: no lone surrogates
    source: str  # name of the dataset it came from
    key: str = ""  # the id inside the folder or file that was given, the same wherever that lies; "": the id is
    more: bool = False  # whether the next document of the stream goes on with this text
