"""Shards of one source in, rows of n_ctx + 1 tokens out; knows nothing of the order in which rows are read.

Documents are packed one behind the other, as GPT-3 was trained (Brown et al. 2020, App. B). Neighbouring rows share
one token: the last target of a row is the first input of the next, so that each token is a target exactly once.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fewshot.base.errors import BadValue, check
from fewshot.dataset.shards import TokenShard


@dataclass(frozen=True)
class Packed:
    """The shards of one source, read as `n_rows` rows; an incomplete last row is dropped.

    Raises `BadValue` if there are fewer than n_ctx + 1 tokens, or if the shards come from different tokenizers.
    """

    shards: tuple[TokenShard, ...]
    n_ctx: int  # tokens that a model reads at once

    def __post_init__(self) -> None:
        check(self.n_ctx >= 1, f"n_ctx is {self.n_ctx}, it must be at least 1")
        check(len({shard.tokenizer for shard in self.shards}) <= 1, "the shards were made by different tokenizers")
        if self.n_rows < 1:
            raise BadValue(
                f"{self._name} has {self.n_tokens:,} tokens, one row of n_ctx {self.n_ctx:,} needs {self.n_ctx + 1:,}: "
                "give more text or lower n_ctx"
            )

    @property
    def _name(self) -> str:
        """The text's name for messages: a shard of the source `books` is named books-train-00000.bin."""
        source, _, part = self.shards[0].path.stem.rpartition("-")[0].rpartition("-") if self.shards else ("", "", "")
        what = {"train": "training", "val": "validation"}.get(part)
        return f"the {what} text of source {source!r}" if what else "the data"

    @property
    def n_tokens(self) -> int:
        """Tokens of all shards, those of the dropped row included."""
        return sum(shard.n_tokens for shard in self.shards)

    @cached_property
    def n_rows(self) -> int:
        """How many complete rows there are."""
        return (self.n_tokens - 1) // self.n_ctx

    @property
    def eot(self) -> int:
        """The id that ends every document."""
        return self.shards[0].eot

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows with these indices, each in range(n_rows); int64 [B, n_ctx + 1]."""
        out = np.empty((len(indices), self.n_ctx + 1), dtype=np.int64)
        for row, index in zip(out, indices.tolist(), strict=True):
            assert 0 <= index < self.n_rows, f"row {index} of {self.n_rows}"
            self._read(index * self.n_ctx, row)
        return out

    def _read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` with the tokens from `start` on, across as many shards as it takes."""
        shard = bisect_right(self._starts, start) - 1
        n_done = 0
        while n_done < len(out):
            first = start + n_done - self._starts[shard]
            piece = self._tokens[shard][first : first + len(out) - n_done]
            out[n_done : n_done + len(piece)] = piece
            n_done += len(piece)
            shard += 1

    @cached_property
    def _tokens(self) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(shard.tokens()) for shard in self.shards)  # plain views: slicing a memmap is slow

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        """The place of each shard's first token in the concatenation."""
        return tuple(np.cumsum([0, *(shard.n_tokens for shard in self.shards[:-1])]).tolist())


def document_numbers(tokens: np.ndarray, eot: int) -> np.ndarray:
    """Return, for each position of each row, how many documents ended before it in that row; int64 [B, T].

    An end-of-text token still belongs to the document that it ends.
    """
    ends = (tokens == eot).astype(np.int64)
    return np.cumsum(ends, axis=1) - ends
