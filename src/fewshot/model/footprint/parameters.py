"""How many parameters a model has, and how many of them one process holds. In: a shape. Out: counts.

By arithmetic, at once for any size: building a model would take minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

from fewshot.model.config import GPTConfig
from fewshot.model.coordinates import table_sizes


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Parameters of a part of a model, by how an optimizer treats them."""

    matrices: int = 0  # in matrices of blocks, which Muon takes
    matrix_rows: int = 0  # rows of those: NorMuon keeps a number for each
    tables: int = 0  # in embeddings and the output matrix
    vectors: int = 0  # in biases and norms

    @property
    def total(self) -> int:
        """All of them."""
        return self.matrices + self.tables + self.vectors

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            matrices=self.matrices + other.matrices,
            matrix_rows=self.matrix_rows + other.matrix_rows,
            tables=self.tables + other.tables,
            vectors=self.vectors + other.vectors,
        )

    def times(self, n: int) -> Counts:
        """Return the counts of `n` such parts."""
        return Counts(
            matrices=n * self.matrices,
            matrix_rows=n * self.matrix_rows,
            tables=n * self.tables,
            vectors=n * self.vectors,
        )


def block_counts(config: GPTConfig, *, tp: int = 1) -> Counts:
    """Return what one of `tp` processes holds of a block: whole heads and a slice of the feed-forward width.

    Norms, and the biases that are added after the processes' sums, are on all of them.
    """
    d, heads, ff = config.d_model, config.n_heads // tp, config.ff_width // tp
    qkv, mixed = heads * (2 * config.qk_width + config.head_width), heads * config.head_width
    return Counts(
        matrices=d * (qkv + mixed + 2 * ff),
        matrix_rows=qkv + d + ff + d,
        vectors=qkv + d + ff + d + 4 * d,  # biases, and two norms with gain and bias
    )


def first_counts(config: GPTConfig) -> Counts:
    """Return what stands before the blocks: token and position embeddings."""
    return Counts(tables=config.d_model * (config.n_vocab + sum(table_sizes(config.positions, n_ctx=config.n_ctx))))


def last_counts(config: GPTConfig, *, own_matrix: bool) -> Counts:
    """Return what stands after the blocks: the last norm and, with `own_matrix`, the output matrix."""
    return Counts(
        tables=config.d_model * config.n_vocab if own_matrix else 0,
        vectors=0 if config.block == "post-ln" else 2 * config.d_model,
    )


def n_parameters(config: GPTConfig) -> int:
    """Compute the number of parameters of the whole model; a tied output matrix counts once."""
    ends = first_counts(config) + last_counts(config, own_matrix=not config.tied)
    return n_block_parameters(config) + ends.total


def n_block_parameters(config: GPTConfig) -> int:
    """Compute the number of parameters in the blocks: all but embeddings, output matrix and last norm."""
    return config.n_layers * block_counts(config).total


def n_embedding_parameters(config: GPTConfig) -> int:
    """Compute the number of parameters of token and position embeddings."""
    return first_counts(config).total
