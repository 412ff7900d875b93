"""GPT-2's byte-level BPE, which GPT-3 uses too: trained by `tokenizers`, encoded by `tiktoken`.

In: text to train on, or the files of a trained vocabulary. Out: a `BPE`. It does not know where the text comes from.

All file formats write a token in GPT-2's alphabet, one printable character a byte; tiktoken takes the bytes.
Source: Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import tiktoken
import tokenizers
from jaxtyping import UInt32

from fewshot.base.errors import check
from fewshot.base.files import read_json, read_text
from fewshot.base.machine import check_fits
from fewshot.base.text import without_surrogates
from fewshot.tokenizer.pieces import pieces
from fewshot.tokenizer.vocab import EOT, Tokenizer

# GPT-2's split into words. Possessive, and with white space taken in steps of 512: otherwise a megabyte of blanks
# overflows the stack of the regular expression. The last three mean "all blanks but the last before a word".
SPLIT = "|".join(
    [
        r" ?\p{L}++",
        r" ?\p{N}++",
        r"'(?:s|t|re|ve|m|ll|d)",
        r" ?[^\s\p{L}\p{N}]++",
        r"(?:\s{512}(?=\s))++(?:\s+(?!\S))?",
        r"\s+(?!\S)",
        r"\s",
    ]
)
# The trainer takes time quadratic in a word's length; it sees a longer word as several of this many characters.
LONG_WORD = re.compile(r"(\S{1000}|\s{1000})")
GPT2_FILES = [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")]
MIN_PAIR_COUNT = 2  # a pair seen once is no pattern
MAX_VOCAB = 2**24
TRAINER_BYTES = 80  # that the trainer takes for an entry before it reads a word: measured 70


def _alphabet() -> dict[str, int]:
    """Return the byte of each of GPT-2's 256 printable characters.

    It is the same in Latin-1 if it is visible there; for the others the characters from U+0100 on are taken in order.
    """
    visible = [byte for byte in range(256) if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


ALPHABET = _alphabet()


@final
class BPE(Tokenizer):
    """A byte-level BPE: 256 bytes, one token a merge, and `<|endoftext|>`."""

    pieces_stand_alone = True

    def __init__(self, ids: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        """`ids` of all tokens and the pairs to merge, in order, both in GPT-2's alphabet.

        Ids must run from 0 without gaps, those of merged tokens in the order of the merges, as tiktoken's ranks do;
        else raises BadValue.
        """
        merged = [left + right for left, right in merges]
        check(
            ids.keys() == {*ALPHABET, *merged, EOT},
            f"the vocabulary must hold the 256 bytes, the tokens of the {len(merged):,} merges and {EOT}; nothing else",
        )
        check(all(isinstance(i, int) for i in ids.values()), "the ids must be whole numbers")
        check(sorted(ids.values()) == list(range(len(ids))), f"the ids must be 0 to {len(ids) - 1:,}, each once")
        check(all(part in ids for pair in merges for part in pair), "a merge joins a token that does not exist")
        check(
            all(ids[a] < ids[b] for a, b in itertools.pairwise(merged)),
            "the ids of merged tokens must be in the order of the merges",
        )
        self.n_vocab = len(ids)
        self.eot = ids[EOT]
        self._ids = dict(ids)
        self._merges = list(merges)
        ranks = {bytes(ALPHABET[c] for c in token): i for token, i in ids.items() if token != EOT}
        self.encoding = tiktoken.Encoding(
            "fewshot", pat_str=SPLIT, mergeable_ranks=ranks, special_tokens={EOT: self.eot}
        )

    def encode_to_numpy(self, text: str) -> UInt32[np.ndarray, " T"]:
        """Return the ids of `text`, by tiktoken."""
        try:
            ids = self.encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            ids = self.encoding.encode_to_numpy(without_surrogates(text), disallowed_special=())
        return ids.copy()  # tiktoken's own is read-only

    def _join(self, ids: list[int]) -> bytes:
        return self.encoding.decode_bytes(ids)

    def to_json(self) -> str:
        """Return the tokenizer in the format of Hugging Face `tokenizers`."""
        value = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": self.eot,
                    "content": EOT,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            ],
            "normalizer": None,
            "pre_tokenizer": _BYTE_LEVEL,
            "post_processor": None,
            "decoder": _BYTE_LEVEL,
            "model": _PLAIN_BPE | {"vocab": self._ids, "merges": self._merges},
        }
        return json.dumps(value, ensure_ascii=False)


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_PLAIN_BPE = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


def bpe_from_json(value: Mapping[str, Any]) -> BPE:
    """Return the BPE in a value of the `tokenizers` format; raise `BadValue` for one that cuts text in another way."""
    model, splitter = _part(value, "model"), _part(value, "pre_tokenizer")
    rows: list[tuple[str, Mapping[str, Any], dict[str, Any]]] = [
        ("tokenizer", value, {"normalizer": None, "truncation": None, "padding": None}),
        ("pre_tokenizer", splitter, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}),
        ("post_processor", _post_processor(value), {"type": "ByteLevel"}),
        ("model", model, _PLAIN_BPE),
    ]
    for where, part, supported in rows:
        for key, wanted in supported.items():
            present = part.get(key, None if key == "type" else wanted)
            check(
                present == wanted or (wanted is None and present == ""),
                f"its {where} has {key}={present!r}; only GPT-2's byte-level BPE is supported, which has {wanted!r}",
            )
    added = {str(token.get("content")): token.get("id") for token in value.get("added_tokens") or []}
    check(set(added) <= {EOT}, f"its special tokens are {', '.join(added)}; only {EOT} is supported")
    return BPE(_part(model, "vocab") | added, _pairs(model.get("merges") or []))


def _post_processor(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the post-processor; a template that adds no token to a single text does what ByteLevel does: nothing."""
    part = {"type": "ByteLevel"} | _part(value, "post_processor")
    adds_nothing = part["type"] == "TemplateProcessing" and not part.get("special_tokens")
    return {"type": "ByteLevel"} if adds_nothing else part


def _part(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    part = value.get(key) or {}
    check(isinstance(part, dict), f"{key} must hold names and values, found {type(part).__name__}")
    return part


def _pairs(merges: Iterable[Any]) -> list[tuple[str, str]]:
    """Return merges as pairs, from "left right" or ["left", "right"]."""
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    check(all(len(pair) == 2 for pair in pairs), "each merge must be a pair of tokens")
    return [(str(left), str(right)) for left, right in pairs]


def load_gpt2(folder: Path) -> BPE:
    """Return the BPE of GPT-2's and GPT-3's own two files; raises BadValue if they do not fit each other.

    They are `encoder.json` and `vocab.bpe`, or under Hugging Face's names `vocab.json` and `merges.txt`.
    """
    ids_name, merges_name = next((names for names in GPT2_FILES if (folder / names[0]).exists()), GPT2_FILES[0])
    ids = read_json(folder / ids_name)
    check(isinstance(ids, dict), f"{ids_name} must hold tokens and ids, found {type(ids).__name__}")
    lines = (line.rstrip("\r") for line in read_text(folder / merges_name).split("\n"))  # Windows' line ends too
    return BPE(ids, _pairs(line for line in lines if line and not line.startswith("#version")))


def check_size(n_vocab: int) -> None:
    """Raise BadValue for a vocabulary that cannot be trained; the trainer takes its memory at once, and aborts."""
    check(n_vocab >= 257, f"n_vocab={n_vocab} is too small: 256 bytes and {EOT} need 257")
    check(
        n_vocab <= MAX_VOCAB,
        f"n_vocab is {n_vocab:,}, must be at most {MAX_VOCAB:,}: every entry is a pair that occurs twice in the text, "
        "and a row of the embedding",
    )
    check_fits(TRAINER_BYTES * n_vocab, f"training {n_vocab:,} entries", "lower n_vocab")


def train_bpe(texts: Iterable[str], *, n_vocab: int) -> BPE:
    """Return a BPE trained on `texts`: 256 bytes, then merges by frequency, then `<|endoftext|>` as the last id.

    Its `n_vocab` is smaller where the texts have fewer pairs that occur twice. The same texts give the same BPE.
    Raises BadValue if `n_vocab` is below 257 or too large to be trained.
    """
    check_size(n_vocab)
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_vocab - 1,
        min_frequency=MIN_PAIR_COUNT,
        initial_alphabet=sorted(ALPHABET),
        special_tokens=[],
        show_progress=False,
    )
    trained.train_from_iterator(_short_words(texts), trainer)
    model = json.loads(trained.to_str())["model"]
    return BPE(model["vocab"] | {EOT: len(model["vocab"])}, _pairs(model["merges"]))


def _short_words(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts in pieces of bounded size, long words cut."""
    for text in texts:
        for piece in pieces(text):
            yield from LONG_WORD.split(without_surrogates(piece))
