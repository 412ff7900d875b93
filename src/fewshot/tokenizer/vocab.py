"""What every tokenizer can do. In: text. Out: token ids, and back without loss."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fewshot.base.errors import BadValue
from fewshot.base.files import write_text

END_OF_TEXT = "<|endoftext|>"


class Tokenizer(abc.ABC):
    """Text to ids and back. The last id, `eot`, is `<|endoftext|>`; text that spells it is not turned into it."""

    n_vocab: int

    @property
    def eot(self) -> int:
        """The id between documents."""
        return self.n_vocab - 1

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    @abc.abstractmethod
    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids of a text as uint32, [n]; the fast way for long texts."""

    @abc.abstractmethod
    def bytes_of(self, token: int) -> bytes:
        """The bytes of one token other than `eot`."""

    @abc.abstractmethod
    def to_json(self) -> str:
        """The whole tokenizer as JSON text."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of these tokens; an id outside the vocabulary raises BadValue."""
        pieces = []
        for token in ids:
            if not 0 <= token < self.n_vocab:
                raise BadValue(
                    f"token {token} is not in the vocabulary of {self.n_vocab:,}: allowed are 0..{self.n_vocab - 1}"
                )
            pieces.append(END_OF_TEXT.encode() if token == self.eot else self.bytes_of(token))
        return b"".join(pieces)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these tokens; bytes that are not UTF-8 become the replacement character."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    @property
    def fingerprint(self) -> str:
        """sha256 of what `save` writes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        write_text(path, self.to_json())
