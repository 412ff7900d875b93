"""Any tokenizer of the transformers library as a `Tokenizer` of ours.

In: the library's tokenizer. Out: ids of texts, and the bytes of ids as its own decoder has them. It does not know the
model.

Two decoders are computed here byte by byte, as characters may be cut between tokens: GPT-2's alphabet of bytes, and
SentencePiece's sign for a space. Whether one of them gives the library's text is tried on the vocabulary; every other
tokenizer (WordPiece, words with an end sign, whatever comes) is decoded by the library itself.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt32

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.text import without_surrogates
from fewshot.tokenizer.bpe import ALPHABET
from fewshot.tokenizer.vocab import Tokenizer

TRIED_TOKENS = 2000  # of the vocabulary, evenly spread
WORDS = ("a", "0", "的", "x")  # any vocabulary holds one: tokens are decoded behind this word

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TransformersTokenizer(Tokenizer):
    """A tokenizer of transformers; texts are encoded without special tokens."""

    def __init__(self, tokenizer: Any) -> None:
        """Read the vocabulary and choose a decoder.

        Raises BadValue where no token ends a text, BadFile where there is no vocabulary or no usable decoder.
        """
        self.tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        if not set(vocabulary.values()) - self._special:
            raise BadFile(f"{tokenizer.name_or_path} holds no tokenizer: save it there beside the model")
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
        if end is None:
            raise BadValue(f"{tokenizer.name_or_path}: its tokenizer has no token that ends a text")
        self.eot = end
        self._start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.n_vocab = 1 + max(vocabulary.values())  # ids may have holes
        ordinary = sorted(set(vocabulary.values()) - self._special)
        word, self._word = self._known_word(ordinary)
        self.adds_start = bool(word) and self._encoded(word, add_special_tokens=True)[:1] == [self._start]
        self._piece = self._choose_pieces(ordinary[:: 1 + len(ordinary) // TRIED_TOKENS])
        self.pieces_stand_alone = self._piece is not None

    @property
    def start(self) -> int:
        """The token that begins a text, where it has one; else the token that ends a text."""
        return int(self._start)

    def encode_to_numpy(self, text: str) -> UInt32[np.ndarray, " T"]:
        """Return the ids of `text`."""
        return np.array(self._encoded(without_surrogates(text)), dtype=np.uint32)

    def to_json(self) -> str:
        """Return what the library itself stores, or the class and vocabulary of a tokenizer in pure Python."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            return str(backend.to_str())
        plain = {"class": type(self.tokenizer).__name__, "vocabulary": self.tokenizer.get_vocab()}
        return json.dumps(plain, ensure_ascii=False, sort_keys=True)

    def _join(self, ids: list[int]) -> bytes:
        if self._piece is None:
            return self._decoded(ids).encode()
        return b"".join([self._bytes[i] if i in self._bytes else self._bytes_of(i, self._piece) for i in ids])

    def _bytes_of(self, token: int, piece: Callable[[str], bytes]) -> bytes:
        """Return the bytes of a token and cache them; special tokens and holes in the vocabulary have none."""
        spelled = None if token in self._special else self.tokenizer.convert_ids_to_tokens(token)
        self._bytes[token] = b"" if spelled is None else piece(spelled)
        return self._bytes[token]

    def _decoded(self, ids: list[int]) -> str:
        """Return the library's text of ids behind a word, so that a space before them is part of it."""
        before, text = self._library_text(self._word), self._library_text([*self._word, *ids])
        if not text.startswith(before):
            raise BadFile(f"{self.tokenizer.name_or_path}: its decoder changes what stands before a token: {text!r}")
        return text[len(before) :]

    def _library_text(self, ids: list[int], **how: Any) -> str:
        pieces = zip(ids, self.tokenizer.convert_ids_to_tokens(ids), strict=True)
        known = [i for i, piece in pieces if i not in self._special and piece is not None]
        return without_surrogates(str(self.tokenizer.decode(known, skip_special_tokens=True, **how)))

    def _encoded(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        try:
            return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))
        except Exception as error:
            if type(error) is not Exception:  # the bare class is what `tokenizers` raises
                raise
            raise BadValue(
                f"{self.tokenizer.name_or_path}: its tokenizer cannot encode {text[:40]!r}: {error}"
            ) from None

    def _known_word(self, ordinary: list[int]) -> tuple[str, list[int]]:
        """Return a word that the vocabulary knows, and its ids: of `WORDS`, else a token of its own, else nothing."""
        for word in itertools.chain(WORDS, (self._library_text([i]) for i in ordinary[:TRIED_TOKENS])):
            with contextlib.suppress(BadValue):
                ids = self._encoded(word) if word.isalnum() else []
                if ids and not self._special.intersection(ids):
                    return word, ids
        return "", []

    def _choose_pieces(self, tried: list[int]) -> Callable[[str], bytes] | None:
        """Return the decoder of ours that gives the library's texts, None where neither does."""
        for piece in (_piece_of_bytes, _piece_with_sign):
            self._piece, self._bytes = piece, dict[int, bytes]()
            if all(self._as_library(i) for i in tried):
                return piece
        self._piece = None
        for i in tried:
            self._decoded([i])  # raises for a decoder that is of no use, before anything is measured
        return None

    def _as_library(self, token: int) -> bool:
        """Return whether our text of a word and this token is the library's, which may drop a text's first space.

        A byte that is spelled by its number is that byte, also where the library's decoder leaves the number.
        """
        if self._piece is _piece_with_sign and _BYTE.fullmatch(self.tokenizer.convert_ids_to_tokens(token)):
            return True
        ids = [*self._word, token]
        ours = self._join(ids).decode("utf-8", errors="replace")
        theirs = self._library_text(ids, clean_up_tokenization_spaces=False)
        return ours in (theirs, f" {theirs}")


def _piece_of_bytes(piece: str) -> bytes:
    """Return the bytes of a token in GPT-2's alphabet of bytes; added words are text."""
    return bytes(ALPHABET[letter] for letter in piece) if ALPHABET.keys() >= set(piece) else piece.encode()


def _piece_with_sign(piece: str) -> bytes:
    """Return the bytes of a token of SentencePiece, which writes a space as a sign and a byte as its number."""
    spelled = _BYTE.fullmatch(piece)
    return bytes([int(spelled[1], 16)]) if spelled else piece.replace("▁", " ").encode()
