"""The papers' recipe for each size, and the rule that scales it to shorter runs and smaller models.

GPT-3's batch sizes and learning rates: Brown et al. 2020, Table 2.1. The batch ramp lasts 4 to 12 billion tokens
"depending on the model size"; the mapping is not published, so it grows evenly over the eight sizes here.

Sparse Transformers: Child et al. 2019, section 6: Adam, 5,000 steps of warm-up, cosine decay, clipping at 1.0, weight
decay 0.01. Ours, because the paper does not say: the rows of a batch, Adam's betas (GPT-3's), the cosine's end (0), and
the learning rate of all but CIFAR-10 (CIFAR-10's). Nothing more is known of the music models: they have no row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fewshot.train.config import OptimizerConfig, ScheduleConfig

PAPER_TOKENS = 300_000_000_000
WARMUP_TOKENS = 375_000_000
DECAY_TOKENS = 260_000_000_000
BATCH_START_TOKENS = 32_768
MIN_STEPS = 2_000  # a run gets at least so many steps: below, the batch shrinks
MAX_LR = 3e-3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a published model was trained; the defaults are GPT-3's."""

    batch_tokens: int  # at full size
    lr: float  # peak
    ramp_tokens: int  # of the batch
    batch_start_tokens: int = BATCH_START_TOKENS
    n_tokens: int = PAPER_TOKENS
    warmup_tokens: int = WARMUP_TOKENS
    decay_tokens: int = DECAY_TOKENS
    final_fraction: float = 0.1  # of the learning rate
    weight_decay: float = 0.1


def _sparse(n_rows: int, n_ctx: int, *, n_tokens: int) -> Recipe:
    return Recipe(
        batch_tokens=n_rows * n_ctx,
        lr=3.5e-4,
        ramp_tokens=0,
        batch_start_tokens=n_rows * n_ctx,
        n_tokens=n_tokens,
        warmup_tokens=5000 * n_rows * n_ctx,
        decay_tokens=n_tokens,
        final_fraction=0.0,
        weight_decay=0.01,
    )


RECIPES: dict[str, Recipe] = {
    "gpt3-small": Recipe(batch_tokens=524_288, lr=6.0e-4, ramp_tokens=4_000_000_000),
    "gpt3-medium": Recipe(batch_tokens=524_288, lr=3.0e-4, ramp_tokens=5_100_000_000),
    "gpt3-large": Recipe(batch_tokens=524_288, lr=2.5e-4, ramp_tokens=6_300_000_000),
    "gpt3-xl": Recipe(batch_tokens=1_048_576, lr=2.0e-4, ramp_tokens=7_400_000_000),
    "gpt3-2.7b": Recipe(batch_tokens=1_048_576, lr=1.6e-4, ramp_tokens=8_600_000_000),
    "gpt3-6.7b": Recipe(batch_tokens=2_097_152, lr=1.2e-4, ramp_tokens=9_700_000_000),
    "gpt3-13b": Recipe(batch_tokens=2_097_152, lr=1.0e-4, ramp_tokens=10_900_000_000),
    "gpt3-175b": Recipe(batch_tokens=3_200_000, lr=0.6e-4, ramp_tokens=12_000_000_000),
    "st-enwik8": _sparse(16, 12_288, n_tokens=80 * 90_000_000),  # 80 epochs of 90M bytes
    "st-cifar10": _sparse(16, 3072, n_tokens=120 * 48_000 * 3072),  # 120 epochs of 48,000 images
    "st-imagenet64": _sparse(64, 12_288, n_tokens=70 * 1_281_167 * 12_288),  # 70 epochs of ImageNet's training set
}


def recipe_for(preset: str | None, n_parameters: int) -> Recipe:
    """Return the paper's recipe of a preset, or one for a model of `n_parameters` with the learning rate of its size.

    Models below 760M share the smallest batch and ramp.
    """
    if preset in RECIPES:
        return RECIPES[preset]
    lr = float(f"{lr_for(n_parameters):.2g}")
    return Recipe(batch_tokens=524_288, lr=lr, ramp_tokens=4_000_000_000)


def lr_for(n_parameters: int) -> float:
    """Return the peak learning rate for a model of that size, on the line through Table 2.1.

    It falls from 6.0e-4 at 125M to 0.6e-4 at 175B: a power of -0.318; the line is extended to smaller models and cut at
    3e-3.
    """
    power = math.log(0.1) / math.log(174_604_259_328 / 125_226_240)
    return min(MAX_LR, 6.0e-4 * (n_parameters / 125_226_240) ** power)


def schedule_for(
    recipe: Recipe, *, n_tokens: int, n_ctx: int, given: Mapping[str, int] | None = None
) -> ScheduleConfig:
    """Return the paper's schedule, with its clocks scaled where the run is shorter than the paper's.

    GPT-3's cosine ends at 260/300 of the run and the ramp keeps its share of it. The warm-up keeps its tokens up to 2%
    of the run or to its share, if that is more: a smaller share of a short run would be a handful of steps. The batch
    shrinks, in whole rows, until the run has 2,000 steps; a ramp starts at a sixteenth of it, as the paper's
    32k : 0.5M does. Values of batch and clocks that are `given` stay, and the rest follows them.
    """
    given = given or {}
    share = min(1.0, n_tokens / recipe.n_tokens)
    rows = max(1, min(recipe.batch_tokens, n_tokens // MIN_STEPS) // n_ctx)
    chosen = rows * n_ctx if share < 1 else recipe.batch_tokens
    batch = given.get("batch_tokens", max(chosen, given.get("batch_start_tokens", 0)))
    start = min(recipe.batch_start_tokens, batch)
    if share < 1:
        start = min(batch, max(1, batch // 16 // n_ctx) * n_ctx) if recipe.ramp_tokens else batch
    whole = recipe.decay_tokens == recipe.n_tokens  # the decay takes the whole run, however long it is
    warmup = min(recipe.warmup_tokens, max(n_tokens // 50, int(recipe.warmup_tokens * share)))
    warmup = given.get("warmup_tokens", min(warmup, max(0, given.get("decay_tokens", n_tokens) // 2)))
    return ScheduleConfig(
        n_tokens=n_tokens,
        batch_tokens=batch,
        batch_start_tokens=given.get("batch_start_tokens", start),
        ramp_tokens=int(recipe.ramp_tokens * share),
        warmup_tokens=warmup,
        decay_tokens=given.get(
            "decay_tokens", max(n_tokens if whole else int(recipe.decay_tokens * share), warmup + 1)
        ),
        final_fraction=recipe.final_fraction,
    )


def optimizer_for(recipe: Recipe, *, name: str) -> OptimizerConfig:
    """Return the paper's Adam at the recipe's learning rate, or Muon with it for the embeddings."""
    return OptimizerConfig(name=name, lr=recipe.lr, weight_decay=recipe.weight_decay)
