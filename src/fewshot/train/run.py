"""A run as a whole: a new one is made, an old one goes on. In: a partial configuration. Out: reports and a run folder.

A run is a folder: config.yaml (resolved), tokenizer.json, data/ (token shards), checkpoints/, metrics.jsonl.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fewshot.base.config import from_plain, lay_over, read_yaml, to_plain, write_yaml
from fewshot.base.dist import n_ranks
from fewshot.base.errors import BadFile, BadValue, KernelUnsupported
from fewshot.base.lock import hold
from fewshot.base.rng import seed_of
from fewshot.checkpoint.folder import (
    CONFIG,
    CONVERTED,
    DATA,
    FOLDER,
    TOKENIZER,
    UNFINISHED,
    check_is_new,
    checkpoint_folders,
    making,
)
from fewshot.checkpoint.load import find_checkpoint, load_model
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.corpus.sources import check_paths
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.dataset.prepare import DataConfig, Say, Tokens, build_tokens, load_tokens, make_tokenizer, measure_text
from fewshot.kernels.choose import Choices, choose_for
from fewshot.kernels.compiler import compiler_problem
from fewshot.model.gpt import GPT
from fewshot.model.machine import compile_blocks, machine_device, requirements_of
from fewshot.train.loop import TrainState, training
from fewshot.train.metrics import StepMetrics
from fewshot.train.plan import check_early, check_whole, is_sure, state_bytes
from fewshot.train.resolve import RunConfig, check_sections, data_config, resolve, section, wanted_vocab
from fewshot.train.schedule import count_steps
from fewshot.train.step import choose_precision, fitting_rows
from fewshot.train.throughput import free_memory_bytes

MIN_COMPILED_WIDTH = 256  # on a CPU: narrower models gain nothing from the half minute that compiling takes (LOG.md)

MAY_CHANGE = (
    "loop.checkpoint_every",
    "loop.compile",
    "loop.keep_checkpoints",
    "loop.kernel",
    "loop.log_every",
    "loop.precision",
    "loop.recompute",
    "loop.validate_every",
)

CHOSEN = ("kernel", "precision", "compile")  # of the loop: "auto" is replaced by what it came to, so that it stays so

Hook = Callable[[TrainState], None]


def start(given: Mapping[str, Any], run: Path, *, say: Say, hooks: Sequence[Hook] = ()) -> Iterator[StepMetrics]:
    """Make a new run in the folder `run` from what was given, and train it; yields a report a step.

    `given` is a partial configuration: the sections of `RunConfig`, with `text` (paths) and `n_tokens` as
    short-cuts. What it does not say is chosen, and `say` is told what and why.
    """
    _check_alone()
    check_is_new(run)  # before a lock is put there, too
    check_sections(given)
    data = data_config(given)
    check_early(given, data, device=machine_device())
    _check_text(data, run)
    with hold(run, doing="fewshot train"):
        yield from start_held(given, run, say=say, hooks=hooks)


def _check_text(data: DataConfig, run: Path) -> None:
    """Raise for text that is not there, and for a run that would be read as text the next time."""
    for path in (path for source in data.sources for path in check_paths(source.text)):
        if path.is_dir() and run.resolve().is_relative_to(path.resolve()):
            raise BadValue(f"{run} lies in the folder of text {path}, and would be read as text: give another --out")


def start_held(given: Mapping[str, Any], run: Path, *, say: Say, hooks: Sequence[Hook] = ()) -> Iterator[StepMetrics]:
    """As `start`, in a folder that the caller holds."""
    with making(run):
        parts = _prepare(given, run, say)
    yield from parts.train(run, hooks)


def _prepare(given: Mapping[str, Any], run: Path, say: Say) -> _Parts:
    """Make all of a run but its training: its tokens, its tokenizer and its configuration, in this order."""
    data = data_config(given)
    sizes = measure_text(data, say=say)
    tokenizer = make_tokenizer(data, sizes, n_vocab=wanted_vocab(given), say=say)
    tokens = build_tokens(data, sizes, tokenizer, run / DATA, say=say)
    n_text_tokens = sum(shard.n_tokens for shards in tokens.training for shard in shards)
    config = resolve(
        given, data, n_vocab=tokenizer.n_vocab, n_text_tokens=n_text_tokens, device=machine_device(), say=say
    )
    check_whole(config, device=machine_device(), sure=is_sure(given), say=say)
    free_bytes = free_memory_bytes(machine_device()) - state_bytes(config.model, config.optimizer.name)
    micro_rows = config.loop.micro_rows or fitting_rows(
        config.model, free_bytes=free_bytes, recompute=config.loop.recompute
    )
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, micro_rows=micro_rows))
    parts = _Parts(config, tokens, None, say)
    tokenizer.save(run / TOKENIZER)
    write_yaml(run / CONFIG, to_plain(parts.config))
    return parts


def resume(
    run: Path, *, say: Say, overrides: Mapping[str, Any] | None = None, hooks: Sequence[Hook] = ()
) -> Iterator[StepMetrics]:
    """Go on with the run in `run` from its newest checkpoint, or from its beginning if it has none yet."""
    _check_alone()
    given = set(overrides or {}) - {"loop"} | {f"loop.{key}" for key in section(overrides or {}, "loop")}
    if refused := sorted(given - set(MAY_CHANGE)):
        raise BadValue(f"{', '.join(refused)} cannot change when a run goes on; only {', '.join(MAY_CHANGE)} can")
    _check_is_run(run)
    with hold(run, doing="fewshot resume"):
        stored, config = read_run_config(run), read_run_config(run, overrides)
        checkpoint = _newest(run)
        tokens = load_tokens(config.data, run / DATA)
        say(_where(run, checkpoint, count_steps(config.schedule, n_ctx=config.model.n_ctx)))
        parts = _Parts(config, tokens, checkpoint, say)
        chosen = {name: getattr(parts.config.loop, name) for name in CHOSEN}
        if chosen != {name: getattr(stored.loop, name) for name in CHOSEN}:
            stored = dataclasses.replace(stored, loop=dataclasses.replace(stored.loop, **chosen))
            write_yaml(run / CONFIG, to_plain(stored))
        yield from parts.train(run, hooks)


def _where(run: Path, checkpoint: Checkpoint | None, n_steps: int) -> str:
    """Where a run that goes on stands, in a few words."""
    if checkpoint is None:
        return "no checkpoint yet: starting from step 0"
    if checkpoint.step >= n_steps:
        return f"{run} is complete: all of its {n_steps:,} steps are done"
    return f"going on from step {checkpoint.step:,} of {n_steps:,}"


def _check_alone() -> None:
    """Raise `BadValue` under torchrun: its processes would all write the same run."""
    if n_ranks() > 1:
        raise BadValue(
            f"training in several processes is not there yet, and this is one of {n_ranks()} (WORLD_SIZE): "
            "start fewshot once, without torchrun"
        )


def _check_is_run(run: Path) -> None:
    """Raise `BadFile` with the way out if `run` cannot be resumed; nothing is written."""
    if (run / CONFIG).is_file():
        return
    if not run.exists():
        raise BadFile(f"{run} does not exist; a run folder (made by fewshot train) is needed")
    if (run / UNFINISHED).is_file():
        raise BadFile(
            f"{run} was stopped before its training began: give 'fewshot train' once more with the same --out"
        )
    if checkpoint_folders(run):
        raise BadFile(f"{run} holds {CONVERTED}")
    raise BadFile(f"{run} is not a run: it has no {CONFIG}")


def _newest(run: Path) -> Checkpoint | None:
    """Return the newest checkpoint; none only if there is nothing that might be one."""
    if not checkpoint_folders(run) and not any((run / FOLDER).glob("[!.]*")):
        return None
    return find_checkpoint(run)


def read_run_config(run: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the resolved configuration of a run folder, with `overrides` laid over it."""
    if not (run / CONFIG).is_file():
        raise BadFile(f"{run} is not a run: it has no {CONFIG}")
    return from_plain(RunConfig, lay_over(read_yaml(run / CONFIG), overrides or {}), where=str(run / CONFIG))


def training_mixture(config: RunConfig, tokens: Tokens) -> Mixture:
    """Return the order of all training rows."""
    packed = tuple(Packed(shards, config.model.n_ctx) for shards in tokens.training)
    return Mixture(packed, tuple(source.weight for source in config.data.sources), config.loop.seed)


def validation_rows(config: RunConfig, tokens: Tokens, say: Say) -> Packed | None:
    """Return the held-out rows; None, and said, where there is not one whole row."""
    n_tokens, n_ctx = sum(shard.n_tokens for shard in tokens.validation), config.model.n_ctx
    if 0 < n_tokens <= n_ctx:
        say(f"no validation: the held-out text has {n_tokens:,} tokens, a row needs {n_ctx + 1:,}")
    return Packed(tokens.validation, n_ctx) if n_tokens > n_ctx else None


class _Parts:
    """The model and everything around it, put together; raises before anything is written or computed."""

    def __init__(self, config: RunConfig, tokens: Tokens, checkpoint: Checkpoint | None, say: Say) -> None:
        self.checkpoint = checkpoint
        shape, loop, device = config.model, config.loop, machine_device()
        self.mixture = training_mixture(config, tokens)
        self.validation = validation_rows(config, tokens, say)
        self.precision = choose_precision(loop.precision, device, d_model=shape.d_model)
        kernels = _kernels(config, device, self.precision.dtype)
        torch.manual_seed(seed_of("weights", loop.seed))
        attend = kernels.attend
        model = GPT(shape, attend=attend) if checkpoint is None else load_model(checkpoint, attend=attend)
        self.model = model.to(torch.device(device))
        self.model.recompute = loop.recompute
        problem = _no_compile(config, device)
        if problem is None:
            compile_blocks(self.model)
        dtype = str(self.precision.dtype).removeprefix("torch.")
        say("; ".join(kernels.reasons))
        say(
            f"device: {device}, {dtype} ({self.precision.reason}), "
            f"compiled: {f'no, {problem}' if problem else 'yes'}{', blocks recomputed' if loop.recompute else ''}"
        )
        names = set(kernels.names.values())
        chosen: dict[str, Any] = {
            "kernel": names.pop() if len(names) == 1 else kernels.names,
            "precision": dtype,
            "compile": "never" if problem else "always",
        }
        assert chosen.keys() == set(CHOSEN)
        self.config = dataclasses.replace(config, loop=dataclasses.replace(loop, **chosen))

    def train(self, run: Path, hooks: Sequence[Hook]) -> Iterator[StepMetrics]:
        """Run the loop."""
        return training(
            self.model,
            self.mixture,
            self.validation,
            schedule=self.config.schedule,
            optimizer=self.config.optimizer,
            loop=self.config.loop,
            precision=self.precision,
            micro_rows=self.config.loop.micro_rows or 1,  # `start` has resolved it
            run=run,
            resume=self.checkpoint,
            hooks=hooks,
        )


def _kernels(config: RunConfig, device: str, dtype: torch.dtype) -> Choices:
    """Return the kernels that attention is trained with, one a pattern."""
    shape, loop = config.model, config.loop
    requirements = requirements_of(shape, device=device, dtype=dtype, training=True, documents=loop.document_masking)
    try:
        return choose_for(shape.patterns, loop.kernel, requirements)
    except KernelUnsupported as error:
        raise KernelUnsupported(f"{error} (--loop.kernel auto; what follows may differ in its last bits)") from None


def _no_compile(config: RunConfig, device: str) -> str | None:
    """Return why the blocks are not compiled, or None."""
    wanted, width = config.loop.compile, config.model.d_model
    if wanted == "never":
        return "switched off"
    problem = compiler_problem(device)
    if wanted == "always" and problem:
        raise BadValue(f"loop.compile is always, but there is {problem}: give --loop.compile never")
    if wanted == "auto" and device == "cpu" and width < MIN_COMPILED_WIDTH:
        return f"d_model {width} is too narrow to gain from it on a CPU"
    return problem
