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

from fewshot.checkpoint.folder import RunFolder
from fewshot.dataset.documents import sample_of_shards
from fewshot.dataset.ngrams import ORDER, bits_of
from fewshot.dataset.prepare import load_tokens
from fewshot.tokenizer.load import load_tokenizer
from fewshot.train.records.metrics import read_metrics
from fewshot.train.run import read_run_config

COUNTED_BYTES, HELD_OUT_BYTES = 1 << 22, 1 << 18  # of text: some seconds
RISE = 0.02  # of the lowest validation loss: above it the model has begun to overfit
LAST_PART = 0.8  # of a run: what validation did since then tells whether it still fell
STILL_FALLS, FLAT = 0.01, 0.002  # of the loss, in the last part


def verdicts(run: Path) -> list[str]:
    """Return lines about the validation loss of a run; none if it has no validation."""
    measured = [row for row in read_metrics(RunFolder(run).metrics) if row["val_loss"] is not None]
    if not measured:
        return []
    bits = ngram_bits(run)
    return [*against_counting(measured[-1]["val_bits_per_byte"], bits), *course(measured, run)]


def ngram_bits(run: Path) -> float | None:
    """Return the bits a byte that n-grams of the run's training text cost on its validation text."""
    tokens, tokenizer = (
        load_tokens(read_run_config(run).data, RunFolder(run).data),
        load_tokenizer(RunFolder(run).tokenizer),
    )
    training = tuple(shard for shards in tokens.training for shard in shards)
    counted = sample_of_shards(training, tokenizer, max_bytes=COUNTED_BYTES)
    held_out = sample_of_shards(tokens.validation, tokenizer, max_bytes=HELD_OUT_BYTES)
    n_bytes = len(held_out) - held_out.count(0)
    return bits_of(held_out, counted_in=counted) / n_bytes if n_bytes else None


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
    before = [row for row in measured if row["step"] <= LAST_PART * last["step"]]
    if not before:
        return []
    fall = 1 - last["val_loss"] / before[-1]["val_loss"]
    if fall > STILL_FALLS:
        further = f"fewshot train --start {shlex.quote(str(run))} --text ..."
        return [
            f"validation fell by {100 * fall:.1f}% since step {before[-1]['step']:,}: a longer run would go lower: the "
            f"same command with more --n_tokens, or, going on from these weights, {further}"
        ]
    if fall < FLAT:
        return [
            f"validation has stood still since step {before[-1]['step']:,}: more steps would bring little; "
            "a larger model or more text would help"
        ]
    return []
