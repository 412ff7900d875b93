"""From paths to tokens: which text a run reads, its tokenizer, its training mixture and its validation rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from fewshot.base.errors import check
from fewshot.corpus.document import Document
from fewshot.corpus.sources import read_documents
from fewshot.dataset.shards import TokenShard, build_shards, load_shards
from fewshot.dataset.split import split
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer

Say = Callable[[str], None]
MIN_HELD_OUT = 10  # documents: with fewer, the tail of every document is held out instead


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of text; `weight` is its share of the training rows."""

    name: str
    text: tuple[str, ...]  # files and folders
    weight: float = 1.0

    def __post_init__(self) -> None:
        check(bool(self.text), f"source {self.name!r} names no text: give files or folders")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read and how it becomes tokens."""

    sources: tuple[SourceConfig, ...] = ()
    # "bpe", "chars", "bytes", or a path: tokenizer.json, or a folder with encoder.json and vocab.bpe
    tokenizer: str = "bpe"
    n_vocab: int | None = None  # of a BPE trained here; None: by the size of the text
    val_fraction: float = 0.1
    val_by: str | None = None  # the "tail" of every document, or whole "document"s; None: by their number

    def __post_init__(self) -> None:
        check(bool(self.sources), "there is no text to train on: give --text PATH... or data.sources in the YAML file")
        check(0 <= self.val_fraction < 1, f"val_fraction is {self.val_fraction}, must be in [0, 1)")
        check(self.val_by in (None, "tail", "document"), f"val_by is {self.val_by!r}, allowed: tail, document")
        names = [source.name for source in self.sources]
        check(len(names) == len(set(names)), f"two sources have the same name: {', '.join(names)}")


@dataclass(frozen=True)
class Tokens:
    """All tokens of a run: the shards of each training source, and those of the validation text together."""

    training: tuple[tuple[TokenShard, ...], ...]
    validation: tuple[TokenShard, ...]


def make_tokenizer(data: DataConfig, *, n_vocab: int | None, say: Say) -> Tokenizer:
    """The tokenizer that `data` names: trained on the text, or loaded; `n_vocab` is the preset's wish.

    A BPE sees the training text alone; the characters are those of all text, so that the held-out one can be read.
    """
    if data.tokenizer == "bytes":
        return Bytes()
    if data.tokenizer == "chars":
        return train_chars(document.text for source in data.sources for document in _read(source))
    if data.tokenizer != "bpe":
        return load_tokenizer(Path(data.tokenizer))
    texts = [document.text for source in data.sources for document in _split(list(_read(source)), data, "train")]
    n_chars = sum(map(len, texts))
    size = data.n_vocab or n_vocab or _vocab_for(n_chars)
    tokenizer = train_bpe(texts, n_vocab=size)
    if data.n_vocab is None:
        why = "as the preset has it" if n_vocab else f"by the {n_chars:,} characters of text"
        fewer = f" (of {size:,}: the text has no more pairs that come twice)" if tokenizer.n_vocab < size else ""
        say(f"tokenizer: byte-level BPE with {tokenizer.n_vocab:,} entries{fewer}, {why}")
    return tokenizer


def _vocab_for(n_chars: int) -> int:
    """A vocabulary that leaves each entry some hundreds of occurrences."""
    for limit, size in ((1e6, 512), (5e6, 1024), (20e6, 2048), (200e6, 4096), (2e9, 16384)):
        if n_chars < limit:
            return size
    return 50257


def _read(source: SourceConfig, on_skip: Callable[[str], None] = lambda line: None) -> Iterator[Document]:
    return read_documents([Path(path) for path in source.text], source=source.name, on_skip=on_skip)


def _split(documents: Sequence[Document], data: DataConfig, part: Literal["train", "val"]) -> Iterator[Document]:
    """One part of a source: whole documents where there are enough of them, else the tail of each is held out."""
    return split(documents, part=part, val_fraction=data.val_fraction, by=_held_out_by(data, len(documents)))


def _held_out_by(data: DataConfig, n_documents: int) -> Literal["tail", "document"]:
    enough = n_documents * data.val_fraction >= MIN_HELD_OUT
    return data.val_by or ("document" if enough else "tail")  # type: ignore[return-value]


def build_tokens(data: DataConfig, tokenizer: Tokenizer, folder: Path, *, say: Say) -> Tokens:
    """Tokenise every source, or reuse the shards in `folder` where text and tokenizer are still the same."""
    training: list[tuple[TokenShard, ...]] = []
    validation: list[TokenShard] = []
    for source in data.sources:
        documents = list(_read(source, on_skip=say))  # the only pass that tells of skipped files
        by = _held_out_by(data, len(documents))
        train, val = (partial(_split, documents, data, part) for part in ("train", "val"))
        training.append(build_shards(train, tokenizer, folder, name=f"{source.name}-train"))
        if data.val_fraction > 0:
            validation += build_shards(val, tokenizer, folder, name=f"{source.name}-val")
        n_tokens = sum(shard.n_tokens for shard in training[-1])
        held_out = "the end of every document" if by == "tail" else "whole documents"
        validated = (
            f"{data.val_fraction:.0%} held out for validation, {held_out}" if data.val_fraction else "none held out"
        )
        say(f"text: {source.name}: {len(documents):,} documents, {n_tokens:,} training tokens; {validated}")
    return Tokens(tuple(training), tuple(validation))


def load_tokens(data: DataConfig, folder: Path) -> Tokens:
    """The tokens that `build_tokens` left in `folder`, checked; the text itself is not needed."""
    training = tuple(load_shards(folder, name=f"{source.name}-train") for source in data.sources)
    return Tokens(training, load_validation(data, folder))


def load_validation(data: DataConfig, folder: Path) -> tuple[TokenShard, ...]:
    """The validation tokens among them, checked."""
    held_out = data.sources if data.val_fraction > 0 else ()
    return tuple(shard for source in held_out for shard in load_shards(folder, name=f"{source.name}-val"))
