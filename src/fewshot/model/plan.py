"""What a model costs before it is built: parameters, floating-point operations, memory. In: a config. Out: numbers."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot.model.config import GPTConfig
from fewshot.model.footprint.activations import activation_bytes
from fewshot.model.footprint.parameters import n_embedding_parameters, n_parameters
from fewshot.patterns.pages import PAGE, most_pages
from fewshot.patterns.pattern import Pattern

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
    """Return the costs of a model; nothing is built."""
    total = n_parameters(config)
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
        n_non_embedding=total - n_embedding_parameters(config),
        n_tokens=n_tokens,
        flops=flops,
        pf_days=flops / FLOPS_PER_PF_DAY,
        table_d1_flops=rounded,
        table_d1_pf_days=rounded / FLOPS_PER_PF_DAY,
        training_state_bytes=16 * total,
        activation_bytes=activation_bytes(config),
        recomputed_bytes=activation_bytes(config, recompute="full"),
        inference_weight_bytes=2 * total,
        cache_bytes=cache_bytes(config),
    )


def cache_bytes(config: GPTConfig, *, size: int = 2) -> int:
    """Return the bytes of keys and values of one full context, in numbers of `size` bytes; see model/paged_cache.py."""
    schedule, heads = config.schedule(), range(config.n_heads)
    pages: dict[Pattern, int] = {}  # over all heads of a layer
    for pattern in config.patterns:
        kinds = pattern.for_heads(config.n_heads)
        pages[pattern] = sum(most_pages(kinds[h % len(kinds)], config.n_ctx, config.n_ctx, 1) for h in heads)
    n_pages = sum(pages[schedule.for_layer(layer)] for layer in range(config.n_layers))
    width = -(-config.head_width // PAGE) * PAGE
    return 2 * size * n_pages * PAGE * width
