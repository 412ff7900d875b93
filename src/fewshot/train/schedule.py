"""Learning rate and batch size, pure functions of the tokens seen. Source: Brown et al. 2020, Appendix B."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewshot.base.errors import check
from fewshot.train.config import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step, known before anything is computed."""

    number: int  # from 1
    first_row: int  # of the training mixture
    n_rows: int  # rows of n_ctx tokens
    lr_fraction: float  # of the peak learning rates

    @property
    def end_row(self) -> int:
        """Return the row of the mixture behind its last."""
        return self.first_row + self.n_rows


def step_after(schedule: ScheduleConfig, *, n_steps: int, n_rows: int, n_ctx: int, n_left_out: int = 0) -> Step:
    """Return the step that follows `n_steps` steps, which have read `n_rows` rows and left out some more."""
    rows = batch_rows(schedule, n_rows * n_ctx, n_ctx=n_ctx)
    fraction = lr_fraction(schedule, (n_rows + rows) * n_ctx)
    return Step(number=n_steps + 1, first_row=n_rows + n_left_out, n_rows=rows, lr_fraction=fraction)


def lr_fraction(schedule: ScheduleConfig, tokens_seen: int) -> float:
    """Return the share of the peak learning rate after so many tokens.

    A linear warm-up, then a cosine (or line) to `final_fraction`, then constant.

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
    """Return how many rows of n_ctx tokens the next step has: a linear ramp from the start size to the full size."""
    full = schedule.batch_tokens
    if tokens_seen < schedule.ramp_tokens:
        start = schedule.batch_start_tokens
        full = start + (full - start) * tokens_seen // schedule.ramp_tokens
    return whole_rows(full, n_ctx)


def whole_rows(n_tokens: int, n_ctx: int) -> int:
    """Return the number of rows nearest to so many tokens; at least one."""
    return max(1, round(n_tokens / n_ctx))


def about_clocks(schedule: ScheduleConfig, *, n_ctx: int) -> list[str]:
    """Return a line for each clock that does not fit the run; one that cannot work raises BadValue."""
    n_tokens, batch, warmup, decay = (
        getattr(schedule, name) for name in ("n_tokens", "batch_tokens", "warmup_tokens", "decay_tokens")
    )
    check(decay >= 0, f"schedule.decay_tokens is {decay}, must not be negative")
    check(
        batch <= max(n_tokens, n_ctx),
        f"schedule.batch_tokens {batch:,} is above n_tokens {n_tokens:,}: the run is shorter than one batch; lower "
        "one or raise the other",
    )
    check(
        decay > warmup or warmup >= n_tokens,
        f"schedule.decay_tokens {decay:,} must be above schedule.warmup_tokens {warmup:,}: both count from the start, "
        "and the decay begins where the warm-up ends",
    )
    share = lr_fraction(schedule, n_tokens)
    lines = []
    if warmup >= n_tokens:
        lines.append(
            f"schedule: the warm-up takes {warmup:,} tokens, the run has {n_tokens:,}: the learning rate ends at "
            f"{share:.2%} of its peak (--schedule.warmup_tokens)"
        )
    elif decay > n_tokens:
        lines.append(
            f"schedule: the decay takes {decay:,} tokens, the run has {n_tokens:,}: the learning rate ends at "
            f"{share:.1%} of its peak (--schedule.decay_tokens)"
        )
    elif 2 * decay < n_tokens:
        lines.append(
            f"schedule: the decay ends after {decay:,} of {n_tokens:,} tokens: the learning rate stays at "
            f"{share:.1%} of its peak from there (--schedule.decay_tokens)"
        )
    if schedule.ramp_tokens > n_tokens and schedule.batch_start_tokens < batch:
        lines.append(
            f"schedule: the batch grows over {schedule.ramp_tokens:,} tokens, the run has {n_tokens:,}: it ends at "
            f"{batch_rows(schedule, n_tokens, n_ctx=n_ctx) * n_ctx:,} of {batch:,} (--schedule.ramp_tokens)"
        )
    return lines


def count_steps(schedule: ScheduleConfig, *, n_ctx: int) -> int:
    """Return how many optimizer steps the whole run has."""
    seen = steps = 0
    while seen < min(schedule.ramp_tokens, schedule.n_tokens):
        seen += batch_rows(schedule, seen, n_ctx=n_ctx) * n_ctx
        steps += 1
    left = max(0, schedule.n_tokens - seen)
    return steps + math.ceil(left / (batch_rows(schedule, schedule.ramp_tokens, n_ctx=n_ctx) * n_ctx))
