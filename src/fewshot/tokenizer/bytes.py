"""One token a byte, as the Sparse Transformer reads text, images and sound: nothing to train, any text can be encoded.

In: text. Out: its UTF-8 bytes as ids, and back. Source: Child et al. 2019, section 7.
"""

from __future__ import annotations

import json
from typing import final

import numpy as np
from jaxtyping import UInt32

from fewshot.base.text import without_surrogates
from fewshot.tokenizer.bpe import ALPHABET, BPE
from fewshot.tokenizer.vocab import EOT, Tokenizer


@final
class Bytes(Tokenizer):
    """The 256 bytes, each its own id, then `<|endoftext|>`."""

    n_vocab = 257
    eot = 256
    pieces_stand_alone = True

    def encode_to_numpy(self, text: str) -> UInt32[np.ndarray, " T"]:
        """Return the UTF-8 bytes of `text`."""
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = without_surrogates(text).encode()
        return np.frombuffer(data, dtype=np.uint8).astype(np.uint32)

    def _join(self, ids: list[int]) -> bytes:
        return b"".join(EOT.encode() if i == self.eot else bytes([i]) for i in ids)

    def to_json(self) -> str:
        """Return the tokenizer as JSON, which needs only its type."""
        return json.dumps({"type": "bytes"})

    def to_library_json(self) -> str:
        """Return the tokenizer as a byte-level BPE that merges nothing."""
        return BPE(ALPHABET | {EOT: self.eot}, []).to_json()
