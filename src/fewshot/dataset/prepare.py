"""From paths to tokens: which text a run reads, its tokenizer, its training mixture and its validation rows.

The text is streamed twice: to be measured, when what a BPE is trained on is kept, and to be tokenised. Only a tokenizer
of characters reads it once more. A document at a time is held, and of a long one a stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fewshot.base.errors import BadFile, check
from fewshot.base.machine import give_back_memory
from fewshot.base.progress import byte_bar
from fewshot.base.text import utf8_size
from fewshot.corpus.document import Document
from fewshot.corpus.sources import read_documents, text_path
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.dataset.sample import SAMPLE_BYTES, TextSample
from fewshot.dataset.shards import TokenShard, load_shards
from fewshot.dataset.split import VERSIONS, By, Content, Part, content_digest, divide, n_training_chars, rule_name
from fewshot.dataset.tokenise import build_parts
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.pieces import pieces
from fewshot.tokenizer.vocab import Tokenizer

Say = Callable[[str], None]
MADE_HERE = ("bpe", "chars", "bytes")  # tokenizers; any other name is a path
MIN_HELD_OUT = 10  # documents: with fewer, the tail of every document is held out instead


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of text; `weight` is its share of the training rows."""

    name: str
    text: tuple[str, ...]  # paths of files and folders
    weight: float = 1.0  # relative to the weights of the other sources
    text_field: str | None = None  # as data.text_field, for this source; None: data.text_field

    def __post_init__(self) -> None:
        is_file_name = self.name == Path(self.name).name != ""
        check(is_file_name, f"the source name {self.name!r} cannot be a file name: use letters, digits, - and _")
        check(bool(self.text), f"source {self.name!r} names no text: give files or folders")
        for path in self.text:
            text_path(path)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text is read and how it becomes tokens."""

    sources: tuple[SourceConfig, ...] = ()  # the text to train on; see the next section
    # "bpe", "chars", "bytes", or the path of a tokenizer.json or of a folder with encoder.json and vocab.bpe
    tokenizer: str = "bpe"
    n_vocab: int | None = None  # vocabulary size of a BPE trained here; None: chosen by the size of the text
    val_fraction: float = 0.1  # share of the text that is held out for validation
    # what is held out: the end of every document ("tail") or whole documents ("document");
    # None: "document" if val_fraction of the documents is at least 10 of them, else "tail"
    val_by: str | None = None
    text_field: str = "text"  # the field of .jsonl and .parquet records that holds the text

    def __post_init__(self) -> None:
        check(bool(self.sources), "there is no text to train on: give --text PATH... or data.sources in the YAML file")
        check(0 <= self.val_fraction < 1, f"val_fraction is {self.val_fraction}, must be at least 0 and below 1")
        check(self.val_by in (None, "tail", "document"), f"val_by is {self.val_by!r}, allowed: tail, document")
        names = [source.name.casefold() for source in self.sources]  # a file's name may ignore case
        check(len(names) == len(set(names)), f"two sources have the same name: {', '.join(names)}")


@dataclass(frozen=True)
class Tokens:
    """All tokens of a run: the shards of each training source, and those of the validation text together."""

    training: tuple[tuple[TokenShard, ...], ...]
    validation: tuple[TokenShard, ...]


@dataclass(frozen=True)
class TextSize:
    """The size of a source, counted by the first pass through it."""

    n_documents: int
    n_bytes: int  # of all text, in UTF-8
    n_training_chars: int
    held_out_by: By
    long: Mapping[str, Content] = field(default_factory=dict)  # by id: the texts that come in stretches


@dataclass(frozen=True)
class Measured:
    """What the first pass through the text gives."""

    sizes: tuple[TextSize, ...]  # of each source
    sample: TextSample | None  # what a BPE is trained on; None if none is trained


def measure_text(data: DataConfig, *, say: Say) -> Measured:
    """Return the size of every source and how its validation text is held out; reads each once, a document at a time.

    Keeps what a BPE is trained on, at most `SAMPLE_BYTES`. Only this pass tells `say` what is left out. Raises if text
    cannot be read, or a part would be empty.
    """
    if data.tokenizer not in MADE_HERE:
        if not Path(data.tokenizer).exists():
            raise BadFile(f"data.tokenizer: {data.tokenizer} does not exist: give {', '.join(MADE_HERE)} or a path")
        load_tokenizer(Path(data.tokenizer))  # one that is missing or damaged must not wait for hours of reading
    sample = TextSample(SAMPLE_BYTES) if data.tokenizer == "bpe" else None
    return Measured(tuple(_measure(number, data, sample, say) for number in range(len(data.sources))), sample)


def _measure(number: int, data: DataConfig, sample: TextSample | None, say: Say) -> TextSize:
    source = data.sources[number]
    n_documents = n_bytes = n_chars = start = 0  # start: of this stretch in its text
    n_training: dict[By, int] = dict.fromkeys(VERSIONS, 0)
    long: dict[str, Content] = {}
    digest = content_digest()
    with byte_bar(f"reading {source.name}") as on_bytes:
        for document in _read(source, data, on_skip=say):
            text = document.text
            encoded = text.encode()
            digest.update(encoded)
            n_bytes += len(encoded)
            on_bytes(n_bytes)
            if sample and (start or document.more):
                sample.add_stretch(text, start, source=number)
            if document.more:
                start += len(text)
                continue
            content = Content(start + len(text), digest.hexdigest())
            training: dict[By, int] = {
                by: n_training_chars(document, content, val_fraction=data.val_fraction, by=by) for by in VERSIONS
            }
            if start:
                long[document.id] = content
            if sample and start:
                sample.end_long(training)
            elif sample:
                sample.add(text, training, source=number)
            n_documents += 1
            n_chars += content.n_chars
            for by, n in training.items():
                n_training[by] += n
            start, digest = 0, content_digest()
    enough = n_documents * data.val_fraction >= MIN_HELD_OUT
    held_out_by: By = data.val_by or ("document" if enough else "tail")  # type: ignore[assignment]
    n_train = n_training[held_out_by]
    for part, n in (("training", n_train), ("validation", n_chars - n_train)):
        check(
            n > 0 or (part == "validation" and data.val_fraction == 0),
            f"source {source.name!r}: of {n_chars:,} characters in {n_documents:,} documents none is {part} "
            f"text, with val_fraction {data.val_fraction} by {held_out_by}: give more text, or --data.val_fraction 0",
        )
    return TextSize(n_documents, n_bytes, n_train, held_out_by, long)


def make_tokenizer(data: DataConfig, measured: Measured, *, n_vocab: int | None, say: Say) -> Tokenizer:
    """Return the tokenizer that `data` names: trained on the text, or loaded; `n_vocab` is the preset's size.

    `measured` is what `measure_text` gave; its sample is empty afterwards. A BPE sees the training text alone, and of
    more than `SAMPLE_BYTES` a part that is spread over all of it, which `say` is told; the characters are those of all
    text, so that the held-out one can be read.
    """
    if data.tokenizer == "bytes":
        return Bytes()
    if data.tokenizer == "chars":
        return train_chars(_text(data, measured.sizes))
    if data.tokenizer != "bpe":
        return load_tokenizer(Path(data.tokenizer))
    assert measured.sample is not None
    n_chars = sum(size.n_training_chars for size in measured.sizes)
    wanted = data.n_vocab or n_vocab or _vocab_for(n_chars)
    n_seen, tokenizer = _train_bpe(measured.sample, [size.held_out_by for size in measured.sizes], n_vocab=wanted)
    if not measured.sample.is_whole:
        say(f"tokenizer: trained on {n_seen:,} of the {n_chars:,} characters of text, spread over all of it")
    if data.n_vocab is None:
        why = "the preset's size" if n_vocab else f"chosen for {n_chars:,} characters of text"
        fewer = f"; {wanted:,} were wanted, but no more pairs occur twice" if tokenizer.n_vocab < wanted else ""
        say(f"tokenizer: byte-level BPE with a vocabulary of {tokenizer.n_vocab:,} ({why}{fewer})")
    return tokenizer


def _train_bpe(sample: TextSample, ways: list[By], *, n_vocab: int) -> tuple[int, Tokenizer]:
    """Return how many characters a BPE was trained on, and the BPE."""
    n_chars = n_bytes = 0

    def texts() -> Iterator[str]:
        nonlocal n_chars, n_bytes
        for text in sample.training_texts(ways):
            yield text
            n_chars, n_bytes = n_chars + len(text), n_bytes + utf8_size(text)
            on_bytes(n_bytes)

    sample.limit_words(ways)
    with byte_bar("reading for the tokenizer", n_bytes=sample.n_bytes) as on_bytes:
        tokenizer = train_bpe(texts(), n_vocab=n_vocab)
    sample.clear()
    give_back_memory()
    return n_chars, tokenizer


def _text(data: DataConfig, sizes: Sequence[TextSize]) -> Iterator[str]:
    """Yield all text of all sources in pieces."""
    n_done = 0
    with byte_bar("reading for the tokenizer", n_bytes=sum(size.n_bytes for size in sizes)) as on_bytes:
        for source in data.sources:
            for document in _read(source, data):
                for piece in pieces(document.text):
                    yield piece
                    n_done += utf8_size(piece)
                    on_bytes(n_done)


def _vocab_for(n_chars: int) -> int:
    """Return a vocabulary size at which each entry occurs some hundreds of times."""
    for limit, size in ((1e6, 512), (5e6, 1024), (20e6, 2048), (200e6, 4096), (2e9, 16384)):
        if n_chars < limit:
            return size
    return 50257


def _read(
    source: SourceConfig, data: DataConfig, on_skip: Callable[[str], None] = lambda line: None
) -> Iterator[Document]:
    return read_documents(
        source.text,
        text_field=source.text_field or data.text_field,
        field_option="--data.text_field",
        source=source.name,
        on_skip=on_skip,
        in_stretches=True,
    )


def build_tokens(data: DataConfig, measured: Measured, tokenizer: Tokenizer, folder: Path, *, say: Say) -> Tokens:
    """Tokenise every source, or reuse the shards in `folder` if text, tokenizer and split are still the same.

    `measured` is what `measure_text` gave. If an earlier call was stopped, this one goes on with its shards.
    """
    training: list[tuple[TokenShard, ...]] = []
    validation: list[TokenShard] = []
    for source, size in zip(data.sources, measured.sizes, strict=True):
        by = size.held_out_by
        names: dict[Part, str] = {part: f"{source.name}-{part}" for part in _parts(data)}
        with byte_bar(f"tokenising {source.name}", n_bytes=size.n_bytes) as on_bytes:
            made = build_parts(
                partial(_divided, source, size, data, names),
                tokenizer,
                folder,
                parts=tuple(names.values()),
                rule=rule_name(by),
                on_progress=on_bytes,
            )
        parts = {part: made[name] for part, name in names.items()}
        n_bytes = sum(shard.n_bytes for shards in parts.values() for shard in shards)
        if n_bytes != size.n_bytes:  # then a text may be in both parts, or in none
            raise BadFile(
                f"the text of source {source.name!r} changed while it was read, from {size.n_bytes:,} bytes to "
                f"{n_bytes:,}: start again when nothing writes to it"
            )
        training.append(parts["train"])
        validation += parts.get("val", ())
        n_tokens = sum(shard.n_tokens for shard in training[-1])
        whose = "the end of every document" if by == "tail" else "whole documents"
        held_out = (
            f"{data.val_fraction:.0%} held out for validation: {whose}"
            if data.val_fraction
            else "no text held out for validation"
        )
        say(f"source {source.name}: {size.n_documents:,} documents, {n_tokens:,} training tokens; {held_out}")
    return Tokens(tuple(training), tuple(validation))


def _divided(
    source: SourceConfig, size: TextSize, data: DataConfig, names: Mapping[Part, str]
) -> Iterator[tuple[str, Document]]:
    """Yield the documents of a source, or pieces of them, each with the name of its part; streamed."""
    divided = divide(_read(source, data), val_fraction=data.val_fraction, by=size.held_out_by, long=size.long)
    return ((names[part], document) for part, document in divided)


def _parts(data: DataConfig) -> tuple[Part, ...]:
    return ("train", "val") if data.val_fraction > 0 else ("train",)


def load_tokens(data: DataConfig, folder: Path) -> Tokens:
    """Return the tokens that `build_tokens` left in `folder`, checked; the text itself is not needed.

    They stay as they are, by whatever version of the rule they were split; but both parts must be of the same one.
    """
    training: list[tuple[TokenShard, ...]] = []
    validation: list[TokenShard] = []
    for source in data.sources:
        parts = [load_shards(folder, name=f"{source.name}-{part}") for part in _parts(data)]
        rules = sorted({shard.rule or "an older one" for shards in parts for shard in shards})
        if len(rules) > 1:
            raise BadFile(
                f"{folder}: training and validation text of {source.name} were split by different rules "
                f"({' and '.join(rules)}), so that training may have seen validation text: start a new run"
            )
        training.append(parts[0])
        validation += parts[-1] if len(parts) > 1 else ()
    return Tokens(tuple(training), tuple(validation))


def load_validation(data: DataConfig, folder: Path) -> tuple[TokenShard, ...]:
    """Return the validation tokens that `build_tokens` left in `folder`, checked."""
    held_out = data.sources if data.val_fraction > 0 else ()
    return tuple(shard for source in held_out for shard in load_shards(folder, name=f"{source.name}-val"))


def training_mixture(data: DataConfig, tokens: Tokens, *, n_ctx: int, seed: int) -> Mixture:
    """Return the order of all training rows, each of `n_ctx` + 1 tokens."""
    packed = tuple(Packed(shards, n_ctx) for shards in tokens.training)
    return Mixture(packed, tuple(source.weight for source in data.sources), seed)


def validation_rows(tokens: Tokens, *, n_ctx: int, say: Say) -> Packed | None:
    """Return the held-out rows; None, which `say` is told, if the held-out text is shorter than one row."""
    n_tokens = sum(shard.n_tokens for shard in tokens.validation)
    if 0 < n_tokens <= n_ctx:
        say(f"no validation: the held-out text has {n_tokens:,} tokens, a row needs {n_ctx + 1:,}")
    return Packed(tokens.validation, n_ctx) if n_tokens > n_ctx else None
