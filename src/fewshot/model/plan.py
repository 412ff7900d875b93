"""What a model costs before it is built: parameters, floating-point operations, memory. In: a config. Out: numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewshot.model.cache import Cache
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import count_parameters
from fewshot.model.positions import table_sizes

FLOPS_PER_PF_DAY = 8.64e19  # one petaflop/s for a day
PAPER_TOKENS = 300_000_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of one model; FLOPs are 6 a parameter and token, attention left out, as in GPT-3's Table D.1.

    The table first rounds the count, to a million below a billion and to ten million above; `table_d1_flops` and
    `table_d1_pf_days` do so too and reproduce its printed digits.
    """

    name: str
    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    n_ctx: int  # tokens
    n_vocab: int  # entries that n_parameters counts; a run has those of its tokenizer
    pattern: str
    n_parameters: int
    n_non_embedding: int
    n_tokens: int  # trained on
    flops: float
    pf_days: float
    table_d1_flops: float
    table_d1_pf_days: float
    training_state_bytes: int  # weights, gradients and two Adam moments in float32
    activation_bytes: int  # held for the backward pass of one sequence, float32, no recomputation
    recomputed_bytes: int  # the same with recomputation
    inference_weight_bytes: int  # bfloat16
    cache_bytes: int  # keys and values that one full context needs, by the pattern of each layer, bfloat16


def make_plan(name: str, config: GPTConfig, *, n_tokens: int = PAPER_TOKENS) -> Plan:
    """Count the parameters of `config` on the meta device and derive its costs."""
    count = count_parameters(config)
    total = count["total"]
    flops, rounded = (6.0 * n * n_tokens for n in (total, round(total, -6 if total < 1e9 else -7)))
    return Plan(
        name=name,
        n_layers=config.n_layers,
        d_model=config.d_model,
        n_heads=config.n_heads,
        d_head=config.head_width,
        n_ctx=config.n_ctx,
        n_vocab=config.n_vocab,
        pattern=config.pattern,
        n_parameters=total,
        n_non_embedding=count["non_embedding"],
        n_tokens=n_tokens,
        flops=flops,
        pf_days=flops / FLOPS_PER_PF_DAY,
        table_d1_flops=rounded,
        table_d1_pf_days=rounded / FLOPS_PER_PF_DAY,
        training_state_bytes=16 * total,
        activation_bytes=activation_bytes(config),
        recomputed_bytes=activation_bytes(config, recompute=True),
        inference_weight_bytes=2 * total,
        cache_bytes=Cache(config, 1, device="meta", dtype=torch.bfloat16).n_bytes,
    )


def n_parameters(config: GPTConfig) -> int:
    """Compute the number of parameters by arithmetic: at once for any size; building a model would take minutes."""
    return n_block_parameters(config) + _n_embedding(config)


def n_block_parameters(config: GPTConfig) -> int:
    """Compute the number of parameters in the blocks: all but embeddings, output matrix and last norm."""
    d, heads = config.d_model, config.n_heads * config.head_width
    attention = (d + 1) * (2 * config.n_heads * config.qk_width + heads) + (heads + 1) * d
    feed_forward = (d + 1) * config.ff_width + (config.ff_width + 1) * d
    return config.n_layers * (attention + feed_forward + 4 * d)  # and two norms with gain and bias


def _n_embedding(config: GPTConfig) -> int:
    rows = config.n_vocab * (1 if config.tied else 2) + sum(table_sizes(config.positions, n_ctx=config.n_ctx))
    return config.d_model * (rows + (0 if config.block == "post-ln" else 2))


def activation_bytes(config: GPTConfig, *, recompute: bool = False) -> int:
    """Return the bytes that autograd holds for one sequence of n_ctx tokens in float32, attention weights never stored.

    A block holds, in units of T: its two norms' inputs and outputs (4 D), q, k, v (3 W), the mixed values (W) with
    their log-sum-exp (H), and both sides of the feed-forward non-linearity (2 F). Narrow queries and keys are also
    held as they were before they were widened, and sigmoid(1.702 x) beside x. With `recompute` only the input of each
    block is held (D), and during the backward pass one block as a whole.
    """
    width = config.n_heads * config.head_width
    narrow = 2 * config.n_heads * config.qk_width if config.qk_width < config.head_width else 0
    sides = 3 if config.block == "sparse-transformer" else 2
    block = 4 * config.d_model + 4 * width + narrow + config.n_heads + sides * config.ff_width
    blocks = config.n_layers * config.d_model + block if recompute else config.n_layers * block
    return 4 * config.n_ctx * (blocks + 2 * config.d_model)
