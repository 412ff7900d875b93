"""A resolved configuration, tokens and maybe a checkpoint in, everything that the training loop needs out.

The only place that knows the order in which that is made: data, kernels, model, optimizers. Writes nothing, so that
what cannot work is refused before anything is written.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from fewshot.base.errors import BadValue, KernelUnsupported
from fewshot.checkpoint.load import load_model, load_training
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.dataset.prepare import Say, Tokens, training_mixture, validation_rows
from fewshot.kernels.choose import Choices, choose_for
from fewshot.kernels.compiler import compiler_problem
from fewshot.model.gpt import GPT
from fewshot.model.machine import compile_blocks, machine_device, requirements_of
from fewshot.train.optim import Optimizers
from fewshot.train.precision import Precision, choose_precision
from fewshot.train.resolving.resolve import RunConfig

MIN_COMPILED_WIDTH = 256  # on a CPU: narrower models gain nothing from the half minute that compiling takes (LOG.md)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that one run is trained with."""

    config: RunConfig  # "auto" replaced by what was chosen: kernel, precision, compile
    mixture: Mixture
    validation: Packed | None
    precision: Precision
    model: GPT
    optimizers: Optimizers


def build(config: RunConfig, tokens: Tokens, *, checkpoint: Checkpoint | None = None, say: Say) -> Setup:
    """Return what the run is trained with, new or as it was at `checkpoint`; `say` is told what was chosen."""
    shape, loop, device = config.model, config.loop, machine_device()
    mixture = training_mixture(config.data, tokens, n_ctx=shape.n_ctx, seed=loop.seed)
    validation = validation_rows(tokens, n_ctx=shape.n_ctx, say=say)
    precision = choose_precision(loop.precision, device, d_model=shape.d_model)
    kernels = _choose_kernels(config, device, precision.dtype)
    attend = kernels.attend
    model = GPT(shape, attend=attend, seed=loop.seed) if checkpoint is None else load_model(checkpoint, attend=attend)
    model = model.to(torch.device(device))
    model.recompute = loop.recompute
    problem = _why_not_compiled(config, device)
    if problem is None:
        compile_blocks(model)
    optimizers = Optimizers(model, config.optimizer)
    if checkpoint is not None:
        optimizers.load_tensors(load_training(checkpoint))
    say("; ".join(kernels.reasons))
    say(_device_line(device, precision, problem, recompute=loop.recompute))
    names = set(kernels.names.values())
    chosen: dict[str, Any] = {
        "kernel": names.pop() if len(names) == 1 else kernels.names,
        "precision": precision.name,
        "compile": "never" if problem else "always",
    }
    return Setup(
        config=dataclasses.replace(config, loop=dataclasses.replace(loop, **chosen)),
        mixture=mixture,
        validation=validation,
        precision=precision,
        model=model,
        optimizers=optimizers,
    )


def _choose_kernels(config: RunConfig, device: str, dtype: torch.dtype) -> Choices:
    """Return the kernels that attention is trained with, one a pattern."""
    shape, loop = config.model, config.loop
    requirements = requirements_of(shape, device=device, dtype=dtype, training=True, documents=loop.document_masking)
    try:
        return choose_for(shape.patterns, loop.kernel, requirements)
    except KernelUnsupported as error:
        raise KernelUnsupported(f"{error} (--loop.kernel auto; what follows may differ in its last bits)") from None


def _why_not_compiled(config: RunConfig, device: str) -> str | None:
    """Return why the blocks are not compiled, or None if they are.

    Raises `BadValue` if loop.compile is "always" and they cannot be.
    """
    wanted, width = config.loop.compile, config.model.d_model
    if wanted == "never":
        return "switched off"
    problem = compiler_problem(device)
    if wanted == "always" and problem:
        raise BadValue(f"loop.compile is always, but there is {problem}: give --loop.compile never")
    if wanted == "auto" and device == "cpu" and width < MIN_COMPILED_WIDTH:
        return f"d_model {width} is too narrow to gain from it on a CPU"
    return problem


def _device_line(device: str, precision: Precision, problem: str | None, *, recompute: bool) -> str:
    """Return a line about the device, the precision and the compiler."""
    parts = [f"device: {device}", f"matrix products in {precision.name} ({precision.reason})"]
    parts.append(f"not compiled ({problem})" if problem else "compiled")
    parts += ["activations recomputed in the backward pass"] if recompute else []
    return "; ".join(parts)
