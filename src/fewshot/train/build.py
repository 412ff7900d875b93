"""A resolved configuration, tokens and maybe a checkpoint in, everything that the training loop needs out.

The only place that knows the order in which that is made: data, kernels, model, its cut over the processes, compiler,
FSDP, optimizers. Writes nothing, so that what cannot work is refused before anything is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from fewshot.base.errors import BadValue, KernelUnsupported, check
from fewshot.checkpoint.load import open_training
from fewshot.checkpoint.manifest import WEIGHTS, Checkpoint
from fewshot.checkpoint.reader import PieceReader
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.dataset.prepare import Say, Tokens, training_mixture, validation_rows
from fewshot.kernels.choose import Choices, choose_for
from fewshot.kernels.compiler import compiler_problem
from fewshot.model.footprint.layout import why_not
from fewshot.model.gpt import GPT
from fewshot.model.machine import compile_blocks, machine_device, requirements_of
from fewshot.train.fastest import Choice, fastest
from fewshot.train.optim import Optimizers
from fewshot.train.parallel.context import over_positions, share_positions
from fewshot.train.parallel.exact import reduce_in_order
from fewshot.train.parallel.heads import share_heads
from fewshot.train.parallel.mesh import Layout, joined
from fewshot.train.parallel.sharded import shard
from fewshot.train.parallel.stages import Pipeline, Stage, keep_stage
from fewshot.train.precision import Precision, possible_precisions
from fewshot.train.resolving.resolve import RunConfig


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that one process trains its part of a run with."""

    config: RunConfig  # "auto" replaced by what was chosen: kernel, precision, compile
    mixture: Mixture
    validation: Packed | None
    precision: Precision
    model: GPT  # what this process holds of it
    optimizers: Optimizers
    layout: Layout = dataclasses.field(default_factory=Layout)
    groups: Sequence[FSDPModule] = ()  # what FSDP gathers together; empty without it
    pipeline: Pipeline | None = None

    @property
    def micro_rows(self) -> int:
        """How many rows go through the model together."""
        assert self.config.loop.micro_rows is not None, "start has resolved it"
        return self.config.loop.micro_rows


def decide(config: RunConfig, *, say: Say) -> RunConfig:
    """Return the configuration with every "auto" replaced by what suits this machine; `say` is told what and why."""
    device, loop = machine_device(), config.loop
    problem = compiler_problem(device)
    if loop.compile == "always" and problem:
        raise BadValue(f"loop.compile is always, but there is {problem}: give --loop.compile never")
    chosen = fastest(
        config.model,
        loop,
        n_tokens=config.schedule.n_tokens,
        device=device,
        problem=problem,
        kernels_for=lambda dtype: _choose_kernels(config, device, dtype),
    )
    kernels = _choose_kernels(config, device, chosen.precision.dtype)
    say("; ".join(kernels.reasons))
    say(_device_line(device, chosen, recompute=loop.recompute))
    names = set(kernels.names.values())
    values: dict[str, Any] = {
        "kernel": names.pop() if len(names) == 1 else kernels.names,
        "precision": chosen.precision.name,
        "compile": "always" if chosen.compiled else "never",
    }
    return dataclasses.replace(config, loop=dataclasses.replace(loop, **values))


def check_layout(config: RunConfig, layout: Layout) -> None:
    """Raise `BadValue` if the model cannot be cut as the layout asks."""
    problem = why_not(layout, config.model)
    check(problem is None, problem or "")


def build(
    config: RunConfig, tokens: Tokens, *, layout: Layout | None = None, checkpoint: Checkpoint | None = None, say: Say
) -> Setup:
    """Return what the run is trained with, new or as it was at `checkpoint`; `config` is decided.

    With several processes each calls this and gets its part; they wait for each other here.
    """
    shape, loop, device = config.model, config.loop, machine_device()
    mixture = training_mixture(config.data, tokens, n_ctx=shape.n_ctx, seed=loop.seed)
    validation = validation_rows(tokens, n_ctx=shape.n_ctx, say=say)
    precision = possible_precisions(loop.precision, device)[0]
    layout = joined(layout or Layout(), device)
    attend = over_positions(_choose_kernels(config, device, precision.dtype).attend, layout)
    model = GPT(shape, attend=attend, seed=loop.seed)
    model.set_recompute(loop.recompute)
    share_positions(model, layout)
    keep_stage(model, layout)
    share_heads(model, layout)
    model.to(torch.device(device))
    if loop.compile == "always":
        compile_blocks(model)
    stage = Stage(model, layout) if layout.pp > 1 else None
    groups = shard(model, layout, root=stage)
    if layout.exact:
        reduce_in_order(groups)
    optimizers = Optimizers(model, config.optimizer, layout, dtype=precision.dtype)
    if checkpoint is not None:
        restore(optimizers, checkpoint)
    return Setup(
        config=config,
        mixture=mixture,
        validation=validation,
        precision=precision,
        model=model,
        optimizers=optimizers,
        layout=layout,
        groups=groups,
        pipeline=Pipeline(stage, layout, torch.device(device)) if stage is not None else None,
    )


def restore(optimizers: Optimizers, checkpoint: Checkpoint) -> None:
    """Give weights and optimizers the values of a checkpoint; gradients of before are dropped."""
    optimizers.zero_grad()
    PieceReader(checkpoint, WEIGHTS).fill(optimizers.weights())
    if checkpoint.step == 0:  # the weights that a run began with
        for piece in optimizers.state():
            piece.tensor.zero_()
    else:
        open_training(checkpoint).fill(optimizers.state())


def _choose_kernels(config: RunConfig, device: str, dtype: torch.dtype) -> Choices:
    """Return the kernels that attention is trained with, one a pattern."""
    shape, loop = config.model, config.loop
    requirements = requirements_of(shape, device=device, dtype=dtype, training=True, documents=loop.document_masking)
    try:
        return choose_for(shape.patterns, loop.kernel, requirements)
    except KernelUnsupported as error:
        raise KernelUnsupported(f"{error} (--loop.kernel auto; what follows may differ in its last bits)") from None


def _device_line(device: str, chosen: Choice, *, recompute: str) -> str:
    """Return a line about the device, the precision and the compiler."""
    parts = [f"device: {device}", f"matrix products in {chosen.precision.name} ({chosen.precision.reason})"]
    parts.append(f"{'compiled' if chosen.compiled else 'not compiled'} ({chosen.reason})")
    what = {"selective": "the feed-forward halves of blocks are", "full": "blocks are"}
    parts += [f"{what[recompute]} computed again in the backward pass"] if recompute in what else []
    return "; ".join(parts)
