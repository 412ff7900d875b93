"""Documents in, the documents of one part (training or validation) out; knows nothing of tokens.

A pure function of the documents, streamed: to read both parts, read the source twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from fewshot.base.errors import check, look_up
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


def split(documents: Iterable[Document], *, part: Part, val_fraction: float, by: By) -> Iterator[Document]:
    """Yield the documents, or pieces of documents, that belong to `part`; empty pieces are left out.

    "tail": the last `val_fraction` of the characters of every document is validation; for one file and 0.1 this
    is the usual split after the first 90%. "document": whole documents, each drawn for validation with probability
    `val_fraction` by a hash of its key and its text, so that a document keeps its part when others come or go, when
    the folder is moved, and however its path is spelled.
    `val_fraction` lies in [0, 1); 0 gives no validation. Raises `BadValue`.
    """
    check(0 <= val_fraction < 1, f"val_fraction is {val_fraction}, it must be at least 0 and below 1")
    text_of = look_up("way to split", by, {"tail": _by_tail, "document": _by_document})
    chosen = look_up("part", part, {"train": 0, "val": 1})
    texts = ((document, text_of(document, val_fraction)[chosen]) for document in documents)
    return (dataclasses.replace(document, text=text) for document, text in texts if text)


def part_chars(document: Document, *, val_fraction: float, by: By) -> tuple[int, int]:
    """Return how many characters of a document are training and how many validation text."""
    train, val = (_by_tail if by == "tail" else _by_document)(document, val_fraction)
    return len(train), len(val)


def _by_tail(document: Document, val_fraction: float) -> tuple[str, str]:
    """Return the training text and the validation text of one document."""
    cut = int(len(document.text) * (1 - val_fraction))
    return document.text[:cut], document.text[cut:]


def _by_document(document: Document, val_fraction: float) -> tuple[str, str]:
    """Return the training text and the validation text of one document, one of them empty."""
    content = hashlib.blake2b(document.text.encode(), digest_size=16).hexdigest()
    drawn = seed_of("validation", document.key or document.id, content) / 2**63
    return ("", document.text) if drawn < val_fraction else (document.text, "")
