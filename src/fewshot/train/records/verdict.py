"""Is this loss normal? In: the folder of a run that is done. Out: some lines that answer it, from its own figures.

The validation loss is held against n-grams of bytes counted in the run's own training text: a model that has learned
costs fewer bits than they. Its course tells whether the text is being learned by heart, and whether more steps would
help. Knows nothing of what a model is for: a low loss is not a good model.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile
from fewshot.checkpoint.folder import RunFolder
from fewshot.dataset.documents import sample_of_shards
from fewshot.dataset.ngrams import ORDER, bits_of
from fewshot.dataset.shards import read_index
from fewshot.tokenizer.load import load_tokenizer
from fewshot.train.records.metrics import read_metrics
from fewshot.train.run import read_run_config

COUNTED_BYTES, HELD_OUT_BYTES = 1 << 22, 1 << 18  # of text: some seconds
RISE = 0.02  # of the lowest validation loss: above it the model has begun to overfit
FIRST_OF_LAST, LAST_PART = 0.65, 0.8  # of a run: what validation did since then tells whether it still fell
STILL_FALLS, FLAT = 0.01, 0.002  # of the loss, in the last part


def verdicts(run: Path) -> list[str]:
    """Return lines about the validation loss of a run; none if it has no validation."""
    measured = [row for row in read_metrics(RunFolder(run).metrics) if row["val_loss"] is not None]
    if not measured:
        return []
    return [*against_counting(measured[-1]["val_bits_per_byte"], ngram_bits(run)), *course(measured, run)]


def ngram_bits(run: Path) -> float | None:
    """Return the bits a byte that n-grams of the run's training text cost on its validation text.

    None where the run's tokens, of which a sample is read, are not there any more.
    """
    folder = RunFolder(run)
    parts: dict[str, list[bytes]] = {}
    try:
        tokenizer = load_tokenizer(folder.tokenizer)
        for part, max_bytes in {"train": COUNTED_BYTES, "val": HELD_OUT_BYTES}.items():
            indexes = [folder.data / f"{source.name}-{part}.json" for source in read_run_config(run).data.sources]
            shards = [shard for index in indexes for shard in read_index(index)]
            parts[part] = sample_of_shards(shards, tokenizer, max_bytes=max_bytes)
    except BadFile:
        return None
    n_bytes = sum(len(piece) - piece.count(0) for piece in parts["val"])
    return bits_of(parts["val"], counted_in=parts["train"]) / n_bytes if n_bytes and parts["train"] else None


def against_counting(bits: float | None, ngrams: float | None) -> list[str]:
    """Say how a model's bits a byte stand beside those of n-grams; nothing where one of them is not known."""
    if bits is None or ngrams is None:
        return []
    counting = f"{ORDER}-grams of bytes, counted in the training text, need {ngrams:.3f}"
    if bits < ngrams:
        return [f"validation: {bits:.3f} bits/byte; {counting}: the model knows more than they"]
    return [
        f"validation: {bits:.3f} bits/byte, but {counting}: the model has not learned yet what counting knows; "
        "train longer (--n_tokens), or try another learning rate (--optimizer.lr)"
    ]


def course(measured: Sequence[Mapping[str, Any]], run: Path) -> list[str]:
    """Say what the validation loss did, in the rows that have one: rose again, still fell, or stood still."""
    last = measured[-1]
    lowest = min(measured, key=lambda row: row["val_loss"])
    if last["val_loss"] > (1 + RISE) * lowest["val_loss"]:
        return [
            f"validation was lowest at step {lowest['step']:,} ({lowest['val_loss']:.4f}) and has risen to "
            f"{last['val_loss']:.4f} since: the model learns its text by heart; more text, fewer steps "
            f"(--n_tokens {lowest['tokens']}), dropout (--model.dropout 0.1) or a smaller model help"
        ]
    before = [row for row in measured if FIRST_OF_LAST <= row["step"] / last["step"] <= LAST_PART]
    if not before:  # there was no validation at about that step
        return []
    fall = 1 - last["val_loss"] / before[-1]["val_loss"]
    if fall > STILL_FALLS:
        further = f"fewshot train --start {shlex.quote(str(run))} --text ..."
        return [
            f"validation fell by {100 * fall:.1f}% since step {before[-1]['step']:,}: a longer run would go lower: the "
            f"same command with more --n_tokens, or, going on from these weights, {further}"
        ]
    if abs(fall) < FLAT:
        return [
            f"validation has stood still since step {before[-1]['step']:,}: more steps would bring little; "
            "a larger model or more text would help"
        ]
    return []
