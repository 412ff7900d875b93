"""Learning rate and batch size, pure functions of the tokens seen. Source: Brown et al. 2020, Appendix B."""

from __future__ import annotations

import math

from fewshot.train.config import ScheduleConfig


def lr_fraction(schedule: ScheduleConfig, tokens_seen: int) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine (or line) to `final_fraction`, then constant.

    The paper does not say where its cosine clock starts; here it starts at the end of the warm-up, so that the two
    pieces meet at the peak.
    """
    if tokens_seen < schedule.warmup_tokens:
        return tokens_seen / schedule.warmup_tokens
    span = max(1, schedule.decay_tokens - schedule.warmup_tokens)
    progress = min(1.0, (tokens_seen - schedule.warmup_tokens) / span)
    left = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.decay == "cosine" else 1 - progress
    return schedule.final_fraction + (1 - schedule.final_fraction) * left


def batch_rows(schedule: ScheduleConfig, tokens_seen: int, *, n_ctx: int) -> int:
    """Rows of n_ctx tokens in the next step: a linear ramp from the start size to the full size."""
    full = schedule.batch_tokens
    if tokens_seen < schedule.ramp_tokens:
        start = schedule.batch_start_tokens
        full = start + (full - start) * tokens_seen // schedule.ramp_tokens
    return max(1, round(full / n_ctx))


def count_steps(schedule: ScheduleConfig, *, n_ctx: int) -> int:
    """Optimizer steps of the whole run."""
    seen = steps = 0
    while seen < min(schedule.ramp_tokens, schedule.n_tokens):
        seen += batch_rows(schedule, seen, n_ctx=n_ctx) * n_ctx
        steps += 1
    left = max(0, schedule.n_tokens - seen)
    return steps + math.ceil(left / (batch_rows(schedule, schedule.ramp_tokens, n_ctx=n_ctx) * n_ctx))
