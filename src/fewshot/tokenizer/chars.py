"""One token a character: the smallest tokenizer, for small experiments.

In: text. Out: a `Chars` with the characters of that text and no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np
from jaxtyping import UInt32

from fewshot.base.errors import BadValue, check
from fewshot.base.text import without_surrogates
from fewshot.tokenizer.pieces import pieces
from fewshot.tokenizer.vocab import EOT, Tokenizer

UNKNOWN = np.uint32(2**32 - 1)
# In the format of Hugging Face `tokenizers`:
CUT = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
END = {"content": EOT, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@final
class Chars(Tokenizer):
    """The characters of a corpus by code point, then `<|endoftext|>`."""

    pieces_stand_alone = True

    def __init__(self, characters: str) -> None:
        """`characters` in the order of their ids, each once; else raises BadValue."""
        check(characters != "", "a character tokenizer needs at least one character")
        check(len(set(characters)) == len(characters), "a character tokenizer needs each character once")
        self.n_vocab = len(characters) + 1
        self.eot = len(characters)
        self._characters = characters
        self._tokens = [*characters, EOT]
        points = _code_points(characters)
        self._id_of = np.full(int(points.max()) + 2, UNKNOWN, np.uint32)  # by code point; the last one for all beyond
        self._id_of[points] = np.arange(len(points))

    def encode_to_numpy(self, text: str) -> UInt32[np.ndarray, " T"]:
        """Return the ids of `text`, one a character; one that is not known raises `BadValue`."""
        points = _code_points(text)
        ids = self._id_of[np.minimum(points, len(self._id_of) - 1)]
        unknown = ids == UNKNOWN
        if unknown.any():
            point = int(points[unknown.argmax()])
            raise BadValue(
                f"the character {chr(point)!r} (U+{point:04X}) is not among the {self.eot:,} that the tokenizer knows: "
                "leave it out, or train the tokenizer on text that has it"
            )
        return ids

    def _join(self, ids: list[int]) -> bytes:
        return "".join([self._tokens[i] for i in ids]).encode()

    def to_json(self) -> str:
        """Return the tokenizer as JSON: its type and its characters."""
        return json.dumps({"type": "chars", "characters": self._characters}, ensure_ascii=False)

    def to_library_json(self) -> str:
        """Return the tokenizer as words of one character; an unknown character is an error there too."""
        value = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [END | {"id": self.eot}],
            "normalizer": None,
            "pre_tokenizer": CUT,
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": {c: i for i, c in enumerate(self._tokens)}, "unk_token": "[none]"},
        }
        return json.dumps(value, ensure_ascii=False)


def chars_from_json(value: Mapping[str, Any]) -> Chars:
    """Return the character tokenizer in a value that `Chars.to_json` made; another raises `BadValue`."""
    characters = value.get("characters")
    if not isinstance(characters, str):
        raise BadValue("a character tokenizer needs the text 'characters'")
    return Chars(characters)


def chars_from_library(value: Mapping[str, Any]) -> Chars:
    """Return the character tokenizer in a value that `Chars.to_library_json` made; another raises `BadValue`."""
    check(value.get("pre_tokenizer") == CUT, "a vocabulary of words is supported only if each character is one")
    vocab = value["model"].get("vocab")
    check(isinstance(vocab, dict) and all(type(i) is int for i in vocab.values()), "its vocabulary has no ids")
    tokens = sorted(vocab, key=vocab.__getitem__)
    check(sorted(vocab.values()) == list(range(len(vocab))), f"the ids must be 0 to {len(vocab) - 1:,}, each once")
    check(tokens[-1:] == [EOT] and all(len(c) == 1 for c in tokens[:-1]), f"it must hold characters, then {EOT}")
    return Chars("".join(tokens[:-1]))


def train_chars(texts: Iterable[str]) -> Chars:
    """Return the character tokenizer of all characters in `texts`; raises BadValue if there are none."""
    seen: set[str] = set()
    for text in texts:
        for piece in pieces(text):
            seen.update(without_surrogates(piece))
    return Chars("".join(sorted(seen)))


def _code_points(text: str) -> UInt32[np.ndarray, " T"]:
    try:
        data = text.encode("utf-32-le")
    except UnicodeEncodeError:
        data = without_surrogates(text).encode("utf-32-le")
    return np.frombuffer(data, dtype="<u4")
