"""Byte-level BPE as in GPT-2 and GPT-3: `tokenizers` trains it, `tiktoken` encodes with it.

Two files hold the same thing: ours is Hugging Face's tokenizer.json, GPT-2's own are encoder.json and vocab.bpe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import tiktoken
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from fewshot.base.errors import BadFile, BadValue, check
from fewshot.base.files import read_json, read_text
from fewshot.tokenizer.vocab import END_OF_TEXT, Tokenizer

# GPT-2's pre-split with possessive quantifiers: the same pieces, without backtracking over long runs.
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def _byte_symbols() -> dict[int, str]:
    """GPT-2's printable character for every byte: itself where it is printable, else one from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


BYTE_OF_SYMBOL = {symbol: byte for byte, symbol in _byte_symbols().items()}


@final
class BPE(Tokenizer):
    """A byte-level BPE. `vocab` maps symbol strings to ids, `merges` are pairs of symbol strings, best first."""

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self.vocab = {token: i for token, i in vocab.items() if token != END_OF_TEXT}
        self.merges = list(merges)
        self.n_vocab = len(self.vocab) + 1
        if sorted(self.vocab.values()) != list(range(self.n_vocab - 1)):
            raise BadValue(f"the vocabulary's ids must be 0..{self.n_vocab - 2}, with {END_OF_TEXT} last")
        self.ranks = {bytes(BYTE_OF_SYMBOL[symbol] for symbol in token): i for token, i in self.vocab.items()}

    @cached_property
    def encoding(self) -> tiktoken.Encoding:
        """Tiktoken's encoder with the same ranks; it has no special tokens, so no text can spell one."""
        return tiktoken.Encoding("bpe", pat_str=SPLIT, mergeable_ranks=self.ranks, special_tokens={})

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        return {i: piece for piece, i in self.ranks.items()}

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a lone surrogate becomes the replacement character, as in tiktoken."""
        return self.encoding.encode_ordinary(text)

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids as uint32, [n]."""
        try:
            return self.encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            return np.asarray(self.encode(text), dtype=np.uint32)

    def bytes_of(self, token: int) -> bytes:
        """The token's bytes."""
        return self._bytes[token]

    def to_json(self) -> str:
        """Hugging Face's tokenizer.json; `tokenizers` and `transformers` read it."""
        model = models.BPE(vocab=self.vocab, merges=self.merges)
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([END_OF_TEXT])
        return tokenizer.to_str()


def train_bpe(texts: Iterable[str], *, n_vocab: int) -> BPE:
    """A BPE of at most `n_vocab` entries: 256 bytes, the best merges, `<|endoftext|>` last, as GPT-2 has it.

    Text too small for that many merges gives a smaller vocabulary.
    """
    check(n_vocab >= 257, f"n_vocab is {n_vocab}, must be at least 257: 256 bytes and {END_OF_TEXT}")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _from_model(json.loads(tokenizer.to_str())["model"])


def _from_model(model: dict[str, Any]) -> BPE:
    """The BPE in the `model` part of a tokenizer.json; merges stand as pairs or, in older files, as "a b"."""
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return BPE(model["vocab"], merges)  # type: ignore[arg-type]


def from_hugging_face(plain: dict[str, Any], path: Path) -> BPE:
    """The BPE in a parsed tokenizer.json; another kind of tokenizer raises BadFile."""
    model = plain.get("model") or {}
    if model.get("type") != "BPE" or "ByteLevel" not in json.dumps(plain.get("pre_tokenizer")):
        raise BadFile(f"{path} holds no byte-level BPE; GPT-2's kind is needed")
    return _from_model(model)


def load_gpt2(folder: Path) -> BPE:
    """GPT-2's BPE, which is GPT-3's, from `encoder.json` and `vocab.bpe` (or `vocab.json` and `merges.txt`)."""
    names = ("encoder.json", "vocab.bpe") if (folder / "encoder.json").is_file() else ("vocab.json", "merges.txt")
    vocab = read_json(folder / names[0])
    lines = read_text(folder / names[1]).split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if not isinstance(vocab, dict) or any(len(merge) != 2 for merge in merges):
        raise BadFile(f"{folder}: {names[0]} and {names[1]} are not GPT-2's vocabulary and merges")
    return BPE(vocab, merges)  # type: ignore[arg-type]
