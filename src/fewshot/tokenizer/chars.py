"""One token a character: for first lessons, where nothing shall be hidden."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import final

import numpy as np

from fewshot.base.errors import BadValue, check
from fewshot.tokenizer.vocab import END_OF_TEXT, Tokenizer


@final
class Chars(Tokenizer):
    """The characters of a text, in the order of their code points, and `<|endoftext|>` last."""

    def __init__(self, characters: str) -> None:
        check(len(characters) > 0, "a character tokenizer needs at least one character")
        self.characters = "".join(sorted(set(characters)))
        self.n_vocab = len(self.characters) + 1
        self._points = np.array([ord(c) for c in self.characters], dtype=np.uint32)

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids as uint32, [n]; a character that is not in the vocabulary raises BadValue."""
        points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
        ids = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        unknown = np.flatnonzero(self._points[ids] != points)
        if len(unknown):
            character = text[int(unknown[0])]
            raise BadValue(
                f"character {character!r} (U+{ord(character):04X}) is not among the tokenizer's {len(self.characters)}: "
                "train on text that has it, or use a BPE"
            )
        return ids.astype(np.uint32)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.encode_to_numpy(text).tolist()

    def bytes_of(self, token: int) -> bytes:
        """The character in UTF-8."""
        return self.characters[token].encode("utf-8", errors="replace")

    def to_json(self) -> str:
        """Our own small format."""
        return json.dumps({"fewshot": "chars", "characters": self.characters, "last": END_OF_TEXT})


def train_chars(texts: Iterable[str]) -> Chars:
    """The tokenizer of all characters that occur."""
    found: set[str] = set()
    for text in texts:
        found.update(text)
    return Chars("".join(found))
