"""The smaller runs of a ladder. In: the configuration of the run that is asked for. Out: that of a smaller one.

All sizes have the same depth, heads, text, order of rows and number of steps; heads are narrower, and tokens and batch
shrink as the blocks' parameters do. So one point of the schedule is the same share of every run, and between two sizes
nothing changes but their size.
"""

from __future__ import annotations

import dataclasses
import math

from fewshot.base.errors import check
from fewshot.model.config import GPTConfig
from fewshot.model.footprint.parameters import n_block_parameters, n_parameters
from fewshot.train.config import ScheduleConfig
from fewshot.train.resolving.recipes import lr_for
from fewshot.train.resolving.resolve import RunConfig
from fewshot.train.schedule import count_steps, whole_rows

STEP = 4  # heads are a multiple of so many numbers wide
LEAST_SIZES = 4  # three to fit a law of two numbers with something left to judge it by, and the one to predict
POINTS = 20  # of every curve


def shrunk(config: RunConfig, *, halvings: int) -> RunConfig:
    """Return the run whose blocks have about 2^-`halvings` of the parameters; raise `BadValue` if there is none.

    What memory allows is not decided again: `loop.micro_rows` is left open where its batch is smaller.
    """
    model = _narrower(config.model, 2.0**-halvings)
    share = n_block_parameters(model) / n_block_parameters(config.model)
    schedule = _shorter(config.schedule, share, n_ctx=model.n_ctx)
    n_steps = count_steps(schedule, n_ctx=model.n_ctx)
    faster = lr_for(n_parameters(model)) / lr_for(n_parameters(config.model))
    return dataclasses.replace(
        config,
        preset=config.preset if halvings == 0 else None,
        model=model,
        schedule=schedule,
        optimizer=dataclasses.replace(config.optimizer, lr=config.optimizer.lr * faster),
        loop=dataclasses.replace(config.loop, validate_every=max(1, n_steps // POINTS)),
    )


def _narrower(model: GPTConfig, share: float) -> GPTConfig:
    """Return the model with the same layers and heads whose blocks have about that share of the parameters."""
    if share == 1:
        return model

    def scaled(width: int, unit: int) -> int:
        size = unit * round(width * share**0.5 / unit)
        check(
            size >= unit,
            f"a ladder's smallest model would have a share of {share:.3g} of the parameters of {model.n_layers} layers "
            f"x {model.d_model}, too narrow for {model.n_heads} heads: ask for fewer sizes (--ladder N) or a larger "
            "model",
        )
        return size

    def given(width: int | None) -> int | None:
        return None if width is None else scaled(width, STEP)

    return dataclasses.replace(
        model,
        d_model=scaled(model.d_model, STEP * model.n_heads),
        d_head=given(model.d_head),
        d_qk=given(model.d_qk),
        d_ff=given(model.d_ff),
    )


def _shorter(schedule: ScheduleConfig, share: float, *, n_ctx: int) -> ScheduleConfig:
    """Return the schedule with that share of the tokens and of all its clocks, in about as many steps."""

    def rows(n_tokens: int) -> int:
        return whole_rows(round(n_tokens * share), n_ctx) * n_ctx

    return dataclasses.replace(
        schedule,
        n_tokens=math.ceil(schedule.n_tokens * share),
        batch_tokens=rows(schedule.batch_tokens),
        batch_start_tokens=rows(schedule.batch_start_tokens),
        ramp_tokens=int(schedule.ramp_tokens * share),
        warmup_tokens=int(schedule.warmup_tokens * share),
        decay_tokens=math.ceil(schedule.decay_tokens * share),
    )
