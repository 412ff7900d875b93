"""Documents in, each with the part (training or validation) that it or a piece of it belongs to; knows no tokens.

A pure function of the documents, streamed. Of a text that comes in stretches, size and digest must be known before.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fewshot.base.errors import BadFile, check, look_up
from fewshot.base.rng import seed_of
from fewshot.corpus.document import Document

Part = Literal["train", "val"]
By = Literal["tail", "document"]
# One higher with each change of what goes where, so that shards know by which rule they were cut. By document: 1 drew
# by the path as it was typed.
VERSIONS: dict[By, int] = {"tail": 1, "document": 2}


def rule_name(by: By) -> str:
    """Return the way to split with the version of its rule, to be kept with what it made."""
    return f"{by} {VERSIONS[by]}"


@dataclass(frozen=True)
class Content:
    """What decides how a whole text is split."""

    n_chars: int
    digest: str  # hexadecimal, of `content_digest`


def content_digest() -> hashlib.blake2b:
    """Return a digest that takes a whole text in UTF-8."""
    return hashlib.blake2b(digest_size=16)


def n_training_chars(document: Document, content: Content, *, val_fraction: float, by: By) -> int:
    """Return how many characters of a text, from its beginning, are training text; the others are validation text.

    `document` may be any stretch of the text.
    """
    if by == "tail":
        return int(content.n_chars * (1 - val_fraction))
    drawn = seed_of("validation", document.key or document.id, content.digest) / 2**63
    return 0 if drawn < val_fraction else content.n_chars


def divide(
    documents: Iterable[Document], *, val_fraction: float, by: By, long: Mapping[str, Content] | None = None
) -> Iterator[tuple[Part, Document]]:
    """Yield the documents, or pieces of documents, each with its part; empty pieces are left out.

    "tail": the last `val_fraction` of the characters of every document is validation; for one file and 0.1 this
    is the usual split after the first 90%. "document": whole documents, each drawn for validation with probability
    `val_fraction` by a hash of its key and its text, so that a document keeps its part when others come or go, when
    the folder is moved, and however its path is spelled.
    `val_fraction` lies in [0, 1); 0 gives no validation. `long` holds, by id, the texts that come in stretches.
    Raises `BadValue`, and `BadFile` for a stretch of a text that is not as it is there.
    """
    check(0 <= val_fraction < 1, f"val_fraction is {val_fraction}, it must be at least 0 and below 1")
    look_up("way to split", by, {str(way): way for way in VERSIONS})
    return _divided(documents, val_fraction, by, long or {})


def _divided(
    documents: Iterable[Document], val_fraction: float, by: By, long: Mapping[str, Content]
) -> Iterator[tuple[Part, Document]]:
    start = 0  # of this stretch in its text
    for document in documents:
        text = document.text
        end = start + len(text)
        content = long.get(document.id) if start or document.more else _content(text, by)
        if content is None or (end >= content.n_chars if document.more else end != content.n_chars):
            raise BadFile(f"{document.id} changed while it was read: start again when nothing writes to it")
        n_training = n_training_chars(document, content, val_fraction=val_fraction, by=by)
        cut = min(max(n_training - start, 0), len(text))
        if cut:
            yield "train", _piece(document, text[:cut], more=document.more and end < n_training)
        if cut < len(text):
            yield "val", _piece(document, text[cut:], more=document.more)
        start = end if document.more else 0


def _content(text: str, by: By) -> Content:
    """Return the content of a text that is one stretch; its digest only where the way to split needs it."""
    if by == "tail":
        return Content(len(text), "")
    digest = content_digest()
    digest.update(text.encode())
    return Content(len(text), digest.hexdigest())


def _piece(document: Document, text: str, *, more: bool) -> Document:
    unchanged = len(text) == len(document.text) and more == document.more
    return document if unchanged else dataclasses.replace(document, text=text, more=more)
