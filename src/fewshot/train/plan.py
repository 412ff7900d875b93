"""Memory and time that a run needs, compared with this machine before it begins. In: a configuration. Out: a line.

A lower bound by arithmetic, so that sizes that cannot work are refused at once, most of them before any text is read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot.base.config import cast
from fewshot.base.dist import n_local_ranks
from fewshot.base.errors import check
from fewshot.base.machine import check_fits, in_bytes
from fewshot.base.text import in_words
from fewshot.dataset.prepare import DataConfig, Say
from fewshot.kernels.cross_entropy import is_native
from fewshot.model.footprint.memory import Footprint, Work, stage_footprints
from fewshot.model.footprint.parameters import n_parameters
from fewshot.model.machine import free_memory_bytes, matmul_flops_per_second
from fewshot.train.parallel.mesh import Layout, layout_of
from fewshot.train.precision import fitting_rows, possible_precisions
from fewshot.train.resolving.overrides import one_spelling, section
from fewshot.train.resolving.resolve import EFFICIENCY, EXAMPLE, RunConfig, resolve
from fewshot.train.schedule import count_steps, whole_rows

MAX_DAYS = 30  # a run that takes longer needs a yes
BLOCK_SECONDS = (
    0.5e-3  # that one block takes of a step however narrow it is: the calls themselves, forward and backward
)
CLOCKS = ("batch_tokens", "batch_start_tokens", "ramp_tokens", "warmup_tokens", "decay_tokens")
FULL_TOKENS = 4096  # in one forward pass: more make its matrix products no faster on a CPU
QUICK_FLOPS = 1e11  # seconds on any machine: not worth measuring its speed


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The least that one run needs of the memory that its processes on one device share."""

    n_parameters: int
    n_processes: int  # of the whole run
    work: Work  # how a step is computed: of `loop.micro_rows`, or one row at a time where that is not given
    memories: tuple[Footprint, ...]  # of the processes that share a memory: on a CPU those of a machine, else one
    batch_bytes: int  # the tokens of one step
    n_tokens: int
    n_steps: int  # about: the batch taken at its full size
    flops: float  # 6 a parameter and token
    block_seconds: float  # of all steps: what the calls take, however fast the processor is

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and what the optimizer keeps."""
        return sum(_state_of(memory) for memory in self.memories)

    @property
    def pass_bytes(self) -> int:
        """All else that a step takes: activations, the loss, copies, communication."""
        return sum(max(0, memory.peak - _state_of(memory)) for memory in self.memories)

    @property
    def n_bytes(self) -> int:
        """Everything together."""
        return self.state_bytes + self.pass_bytes + self.batch_bytes


def _state_of(memory: Footprint) -> int:
    return memory.weights + memory.gradients + memory.moments


def plan_run(config: RunConfig, *, device: str = "cpu") -> RunPlan:
    """Return what a run needs, by arithmetic, where processes are as many and laid out as they are now."""
    model, loop, n_tokens, layout = config.model, config.loop, config.schedule.n_tokens, layout_of(config.parallel)
    n_rows = whole_rows(config.schedule.batch_tokens, model.n_ctx)
    n_steps = math.ceil(n_tokens / (n_rows * model.n_ctx))
    micro_rows = min(loop.micro_rows or 1, n_rows)
    dtype = possible_precisions(loop.precision, device)[0].dtype  # where it is still open, what takes more memory
    work = Work(
        micro_rows=micro_rows,
        n_micro=math.ceil(n_rows / (micro_rows * layout.n_data)),
        recompute=loop.recompute,
        precision=str(dtype).removeprefix("torch."),
        optimizer=config.optimizer.name,
        native_loss=is_native(device, dtype),
    )
    return RunPlan(
        n_parameters=n_parameters(model),
        n_processes=layout.n_processes,
        work=work,
        memories=_sharing(stage_footprints(model, layout, work), layout, device),
        batch_bytes=n_rows * 2 * 8 * (model.n_ctx + 1),  # read and copied, 8 bytes a token
        n_tokens=n_tokens,
        n_steps=n_steps,
        flops=6.0 * n_parameters(model) * n_tokens,
        block_seconds=n_steps * model.n_layers * BLOCK_SECONDS,
    )


def _sharing(stages: Sequence[Footprint], layout: Layout, device: str) -> tuple[Footprint, ...]:
    """Return what the processes take that share the memory of one device: the first machine, or the fullest GPU."""
    if device != "cpu":
        return (max(stages, key=lambda stage: stage.peak),)
    return tuple(stages[layout.place(rank)["pp"]] for rank in range(n_local_ranks()))


def check_memory(plan: RunPlan, free_bytes: int) -> None:
    """Raise BadValue if the run does not fit in memory, with what takes most of it and the way out."""
    ways_out = {
        plan.state_bytes: "take a smaller model (--preset, or lower model.n_layers, d_model, n_vocab)",
        plan.pass_bytes: "lower --loop.micro_rows or --model.n_ctx, or give --loop.recompute full",
        plan.batch_bytes: "lower --schedule.batch_tokens",
    }
    what = (
        f"training ({plan.n_parameters:,} parameters {in_bytes(plan.state_bytes)}, a forward pass "
        f"{in_bytes(plan.pass_bytes)}, a batch of tokens {in_bytes(plan.batch_bytes)}{_together(plan)})"
    )
    check_fits(plan.n_bytes, what, ways_out[max(ways_out)], free_bytes=free_bytes)


def check_time(plan: RunPlan, seconds: float) -> None:
    """Raise BadValue if the run takes longer than `MAX_DAYS`."""
    check(
        seconds <= MAX_DAYS * 24 * 3600,
        f"this run would take {in_words(seconds)} on this machine, for {plan.n_tokens:,} tokens and "
        f"{plan.n_parameters:,} parameters: lower --n_tokens, take a smaller --preset, or give --yes (needed beyond "
        f"{MAX_DAYS} days)",
    )


def in_one_line(plan: RunPlan, *, free_bytes: int, seconds: float) -> str:
    """Return the line that is printed before anything long begins."""
    return (
        f"plan: {plan.n_steps:,} steps, {in_words(seconds)}; memory: {in_bytes(plan.state_bytes)} for weights, "
        f"gradients and optimizer, {in_bytes(plan.pass_bytes)} for a forward pass{_together(plan)}, "
        f"{in_bytes(free_bytes)} are free"
    )


def _together(plan: RunPlan) -> str:
    """Return of how many processes a plan's bytes are; nothing if of one."""
    return f", of {len(plan.memories)} processes together" if len(plan.memories) > 1 else ""


def check_early(given: Mapping[str, Any], data: DataConfig, *, device: str) -> None:
    """Raise for sizes that cannot work, whatever the text is; nothing is read or built.

    What depends on the text is taken as small as it can be: vocabulary, and size and length if they are not given.
    """
    given = one_spelling(given)
    shape, schedule = section(given, "model"), section(given, "schedule")
    has_length = schedule.get("n_tokens") is not None
    if not given.get("preset") and "n_layers" not in shape:
        given = {**given, "model": {**EXAMPLE, **shape}}
    if not has_length:  # one that all clocks fit in
        clocks = [cast(value, int | None, f"schedule.{key}") for key, value in schedule.items() if key in CLOCKS]
        given = {**given, "schedule": {**schedule, "n_tokens": max([1, *filter(None, clocks)])}}
    config = resolve(given, data, n_vocab=1, n_text_tokens=1, device=device, say=lambda line: None)
    if not is_sure(given):
        plan = plan_run(config, device=device)
        check_memory(plan, free_memory_bytes(device))
        if has_length:
            check_time(plan, _seconds(plan, config, device))


def check_whole(config: RunConfig, *, device: str, sure: bool, say: Say) -> None:
    """Tell `say` what the run needs; raise BadValue if it does not fit or takes too long, unless the user is `sure`."""
    plan, free_bytes = plan_run(config, device=device), free_memory_bytes(device)
    seconds = _seconds(plan, config, device)
    if not sure:
        check_memory(plan, free_bytes)
        check_time(plan, seconds)
    plan = dataclasses.replace(plan, n_steps=count_steps(config.schedule, n_ctx=config.model.n_ctx))  # exactly
    say(in_one_line(plan, free_bytes=free_bytes, seconds=seconds))


def with_micro_rows(config: RunConfig, *, device: str) -> RunConfig:
    """Return the configuration with `loop.micro_rows` filled in: as many as fit beside weights and optimizer.

    Every part of a batch is padded to so many rows: so there are no more than a batch has, in parts of about equal
    size, a part or more for each of the processes that share it, and where batches grow at first no more than their
    smallest has, or `FULL_TOKENS`.
    """
    schedule, n_ctx = config.schedule, config.model.n_ctx
    full, smallest = (whole_rows(n, n_ctx) for n in (schedule.batch_tokens, schedule.batch_start_tokens))
    plan = plan_run(config, device=device)
    free_bytes = (free_memory_bytes(device) - plan.state_bytes) // len(plan.memories)  # for each process
    fitting = fitting_rows(config.model, free_bytes=free_bytes, recompute=config.loop.recompute)
    most = min(fitting, max(smallest, math.ceil(FULL_TOKENS / n_ctx)))
    given, n_parts = config.loop.micro_rows, max(layout_of(config.parallel).n_data, math.ceil(full / most))
    rows = min(given, full) if given else math.ceil(full / n_parts)
    loop = dataclasses.replace(config.loop, micro_rows=rows)
    return dataclasses.replace(config, loop=loop)


def is_sure(given: Mapping[str, Any]) -> bool:
    """Return whether the user accepts any plan (--yes)."""
    return bool(cast(given.get("yes", False), bool, "yes"))


def _seconds(plan: RunPlan, config: RunConfig, device: str) -> float:
    """Return about how long the run takes, by the measured speed of this machine's matrix products.

    As if all processes were as fast as this one: on a CPU, as if each had cores of its own.
    """
    if plan.flops <= QUICK_FLOPS:
        return plan.block_seconds
    dtype = possible_precisions(config.loop.precision, device)[-1].dtype  # where it is still open, the faster one
    size = 768 if device == "cpu" else 4096  # what fills the processor
    rate = plan.n_processes * matmul_flops_per_second(device, size=size, dtype=dtype)
    return plan.flops / (EFFICIENCY * rate) + plan.block_seconds
