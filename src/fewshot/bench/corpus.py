"""Encoding speed of our BPE against tiktoken alone, on the same text in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiktoken

from fewshot.base.errors import BadValue
from fewshot.corpus.sources import read_documents
from fewshot.tokenizer.bpe import BPE
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import EOT

ROUNDS = 7


def encode_speed(paths: Sequence[Path], tokenizer_path: Path) -> dict[str, Any]:
    """Return megabytes a second of both, medians over interleaved rounds, and their ratio (ours / tiktoken's).

    tiktoken's side is the bare `Encoding` with the same ranks, special token and pre-split; ours is the public class.
    """
    tokenizer = load_tokenizer(tokenizer_path)
    if not isinstance(tokenizer, BPE):
        raise BadValue(f"{tokenizer_path} is not a byte-level BPE")
    texts = [document.text for document in read_documents(paths)]
    n_bytes = sum(len(text.encode()) for text in texts)
    bare = tiktoken.Encoding(
        "bare",
        pat_str=tokenizer.encoding._pat_str,
        mergeable_ranks=tokenizer.encoding._mergeable_ranks,
        special_tokens={EOT: tokenizer.eot},
    )
    seconds: dict[str, list[float]] = {"ours": [], "tiktoken": []}
    sides = {
        "ours": tokenizer.encode_to_numpy,
        "tiktoken": lambda text: bare.encode_to_numpy(text, disallowed_special=()),
    }
    for _ in range(ROUNDS):
        for name, encode in sides.items():
            began = time.perf_counter()
            for text in texts:
                encode(text)
            seconds[name].append(time.perf_counter() - began)
    rates = {name: n_bytes / 1e6 / statistics.median(times) for name, times in seconds.items()}
    return {"megabytes": n_bytes / 1e6, "megabytes_per_second": rates, "ratio": rates["ours"] / rates["tiktoken"]}
