"""The interface of all tokenizers: text to ids and back, and a file that says which tokenizer it is.

In: text or ids. Out: ids or text. It does not know how a text is cut into tokens; `bpe`, `bytes` and `chars` do.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from fewshot.base.errors import BadValue
from fewshot.base.files import write_text

EOT = "<|endoftext|>"


class Tokenizer(abc.ABC):
    """Text to ids in [0, n_vocab) and back. The id `eot` ends a document and is never made from text."""

    n_vocab: int
    eot: int
    adds_start = False  # whether its makers put `start` before every text
    pieces_stand_alone = False  # whether a text's bytes are its tokens' bytes, one after the other

    @property
    def start(self) -> int:
        """The id that stands before a text: `eot`, unless the vocabulary has one of its own for that."""
        return self.eot

    @abc.abstractmethod
    def encode_to_numpy(self, text: str) -> UInt32[np.ndarray, " T"]:
        """Return the ids of `text`. Lone surrogates count as U+FFFD; text that spells `<|endoftext|>` stays text."""

    @abc.abstractmethod
    def to_json(self) -> str:
        """Return the whole tokenizer as JSON, as `save` writes it."""

    def to_library_json(self) -> str:
        """Return the tokenizer as a `tokenizer.json` that the Hugging Face libraries load, for the same ids."""
        return self.to_json()

    def library_tokens(self) -> list[str]:
        """Return the tokens of `to_library_json` by id."""
        value = json.loads(self.to_library_json())
        ids = value["model"]["vocab"] | {token["content"]: token["id"] for token in value["added_tokens"]}
        return sorted(ids, key=ids.__getitem__)

    def knows(self, text: str) -> bool:
        """Return whether the text can be encoded: a vocabulary of characters may lack one."""
        try:
            self.encode_to_numpy(text)
        except BadValue:
            return False
        return True

    @abc.abstractmethod
    def _join(self, ids: list[int]) -> bytes:
        """Return the bytes of ids that are known to be in the vocabulary."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` as a list; see `encode_to_numpy`."""
        return self.encode_to_numpy(text).tolist()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that `ids` stand for; an id outside the vocabulary raises `BadValue`."""
        checked = [int(i) for i in ids]
        for i in checked:
            if not 0 <= i < self.n_vocab:
                raise BadValue(f"token {i} is not in the vocabulary: ids go from 0 to {self.n_vocab - 1:,}")
        return self._join(checked)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text that `ids` stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of what `save` writes: equal fingerprints give equal ids."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON, for `load_tokenizer`."""
        write_text(path, self.to_json())
