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
from fewshot.base.errors import BadFile, BadValue
from fewshot.base.rng import seed_of
from fewshot.checkpoint.load import find_checkpoint, load_model
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.save import FOLDER
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.kernels.choose import choose_for
from fewshot.kernels.compiler import compiler_problem
from fewshot.kernels.need import Need
from fewshot.model.compile import compile_blocks
from fewshot.model.device import machine_device
from fewshot.model.gpt import GPT
from fewshot.train.data import Say, Tokens, build_tokens, load_tokens, make_tokenizer
from fewshot.train.loop import Report, TrainState, training
from fewshot.train.plan import check_early, check_whole, is_sure, state_bytes
from fewshot.train.resolve import RunConfig, check_sections, data_config, resolve, section, wanted_vocab
from fewshot.train.step import choose_precision, fitting_rows
from fewshot.train.throughput import free_memory_bytes

CONFIG, TOKENIZER, DATA = "config.yaml", "tokenizer.json", "data"
MIN_COMPILED_WIDTH = 256  # on a CPU: narrower models gain nothing from the half minute that compiling takes (LOG.md)

MAY_CHANGE = (
    "loop.checkpoint_every",
    "loop.keep_checkpoints",
    "loop.log_every",
    "loop.recompute",
    "loop.validate_every",
)

Hook = Callable[[TrainState], None]


def start(given: Mapping[str, Any], run: Path, *, say: Say, hooks: Sequence[Hook] = ()) -> Iterator[Report]:
    """Make a new run in the folder `run` from what was given, and train it; yields a report a step.

    `given` is a partial configuration: the sections of `RunConfig`, with `text` (paths) and `n_tokens` as
    short-cuts. What it does not say is chosen, and `say` is told what and why.
    """
    if (run / CONFIG).exists():
        raise BadValue(f"{run} already holds a run: continue it with 'fewshot resume {run}', or give another --out")
    check_sections(given)
    data = data_config(given)
    check_early(given, data, device=machine_device())
    tokenizer = make_tokenizer(data, n_vocab=wanted_vocab(given), say=say)
    tokens = build_tokens(data, tokenizer, run / DATA, say=say)
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
    write_yaml(run / CONFIG, to_plain(config))
    yield from parts.train(run, hooks)


def resume(
    run: Path, *, say: Say, overrides: Mapping[str, Any] | None = None, hooks: Sequence[Hook] = ()
) -> Iterator[Report]:
    """Go on with the run in `run` from its newest checkpoint, or from its beginning if it has none yet."""
    given = set(overrides or {}) - {"loop"} | {f"loop.{key}" for key in section(overrides or {}, "loop")}
    if refused := sorted(given - set(MAY_CHANGE)):
        raise BadValue(f"{', '.join(refused)} cannot change when a run goes on; only {', '.join(MAY_CHANGE)} can")
    config = read_run_config(run, overrides)
    checkpoint = find_checkpoint(run) if any((run / FOLDER).glob("step-*")) else None
    tokens = load_tokens(config.data, run / DATA)
    say(f"going on from step {checkpoint.step:,}" if checkpoint else "no checkpoint yet: starting from step 0")
    yield from _Parts(config, tokens, checkpoint, say).train(run, hooks)


def read_run_config(run: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The resolved configuration of a run folder, with `overrides` laid over it."""
    if not (run / CONFIG).is_file():
        raise BadFile(f"{run} is not a run: it has no {CONFIG}")
    return from_plain(RunConfig, lay_over(read_yaml(run / CONFIG), overrides or {}), where=str(run / CONFIG))


def training_mixture(config: RunConfig, tokens: Tokens) -> Mixture:
    """The order of all training rows."""
    packed = tuple(Packed(shards, config.model.n_ctx) for shards in tokens.training)
    return Mixture(packed, tuple(source.weight for source in config.data.sources), config.loop.seed)


def validation_rows(config: RunConfig, tokens: Tokens, say: Say) -> Packed | None:
    """The held-out rows; None, and said, where there is not one whole row."""
    n_tokens, n_ctx = sum(shard.n_tokens for shard in tokens.validation), config.model.n_ctx
    if 0 < n_tokens <= n_ctx:
        say(f"no validation: the held-out text has {n_tokens:,} tokens, a row needs {n_ctx + 1:,}")
    return Packed(tokens.validation, n_ctx) if n_tokens > n_ctx else None


class _Parts:
    """The model and everything around it, put together; raises before anything is written or computed."""

    def __init__(self, config: RunConfig, tokens: Tokens, checkpoint: Checkpoint | None, say: Say) -> None:
        self.config, self.checkpoint = config, checkpoint
        shape, loop, device = config.model, config.loop, machine_device()
        self.mixture = training_mixture(config, tokens)
        self.validation = validation_rows(config, tokens, say)
        self.precision = choose_precision(loop.precision, device, d_model=shape.d_model)
        patterns = dict.fromkeys(shape.schedule().for_layer(i) for i in range(shape.n_layers))
        need = Need(
            pattern=next(iter(patterns)),
            device=device,
            dtype=self.precision.dtype,
            n_queries=shape.n_ctx,
            n_keys=shape.n_ctx,
            documents=loop.document_masking,
            dropout=shape.inner_dropout,
            training=True,
            width=shape.head_width,
        )
        attend, reasons = choose_for(patterns, loop.kernel, need)
        torch.manual_seed(seed_of("weights", loop.seed))
        model = GPT(shape, attend=attend) if checkpoint is None else load_model(checkpoint, attend=attend)
        self.model = model.to(torch.device(device))
        self.model.recompute = loop.recompute
        problem = self._no_compile(device)
        if problem is None:
            compile_blocks(self.model)
        say("; ".join(reasons))
        say(
            f"device: {device}, {str(self.precision.dtype).removeprefix('torch.')} ({self.precision.reason}), "
            f"compiled: {f'no, {problem}' if problem else 'yes'}{', blocks recomputed' if loop.recompute else ''}"
        )

    def _no_compile(self, device: str) -> str | None:
        """Why the blocks are not compiled, or None."""
        wanted, width = self.config.loop.compile, self.config.model.d_model
        if wanted == "never":
            return "switched off"
        problem = compiler_problem(device)
        if wanted == "always" and problem:
            raise BadValue(f"loop.compile is always, but there is {problem}")
        if wanted == "auto" and device == "cpu" and width < MIN_COMPILED_WIDTH:
            return f"d_model {width} is too narrow to gain from it on a CPU"
        return problem

    def train(self, run: Path, hooks: Sequence[Hook]) -> Iterator[Report]:
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
