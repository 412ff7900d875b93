"""A tokenizer whose ids are code points, and sources built with it, for the tests of this floor."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fewshot.corpus.document import Document
from fewshot.dataset.pack import Packed
from fewshot.dataset.tokenise import build_shards


@dataclass(frozen=True)
class CodePoints:
    n_vocab: int = 60_000
    fingerprint: str = "code points"

    @property
    def eot(self) -> int:
        return self.n_vocab - 1

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def encode_to_numpy(self, text: str) -> np.ndarray:
        return np.array(self.encode(text), dtype=np.uint32)


@pytest.fixture
def code_points() -> Callable[..., CodePoints]:
    return CodePoints


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Packed]:
    """pack(texts, n_ctx=...) gives a source with one document a text."""
    numbers = itertools.count()

    def pack(texts: list[str], *, n_ctx: int, max_tokens_per_shard: int = 10**6) -> Packed:
        documents = [Document(id=str(i), text=text, source="test") for i, text in enumerate(texts)]
        shards = build_shards(
            lambda: iter(documents),
            CodePoints(),
            tmp_path,
            name=f"source{next(numbers)}",
            max_tokens_per_shard=max_tokens_per_shard,
        )
        return Packed(shards, n_ctx)

    return pack
