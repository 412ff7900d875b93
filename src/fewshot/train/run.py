"""A run as a whole: what it was given, what it chose for the rest and why, and how its parts are put together.

A run is a folder: config.yaml (resolved), tokenizer.json, data/ (token shards), checkpoints/, metrics.jsonl.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewshot.base.config import from_plain, lay_over, read_yaml, to_plain, write_yaml
from fewshot.base.errors import BadFile, BadValue, UnknownName, look_up
from fewshot.base.rng import seed_of
from fewshot.checkpoint.load import find_checkpoint, load_model
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.checkpoint.save import FOLDER
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.kernels.choose import choose
from fewshot.kernels.need import Need
from fewshot.model.compile import compile_blocks, compiler_problem
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT, count_parameters
from fewshot.model.presets import PRESETS
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer
from fewshot.train.config import LoopConfig, OptimizerConfig, ScheduleConfig
from fewshot.train.data import DataConfig, Say, Tokens, build_tokens, make_tokenizer
from fewshot.train.loop import Report, TrainState, training
from fewshot.train.recipes import RECIPES, optimizer_for, recipe_for, schedule_for
from fewshot.train.step import choose_precision, fitting_rows
from fewshot.train.throughput import free_memory_bytes, matmul_flops_per_second

CONFIG, TOKENIZER, DATA = "config.yaml", "tokenizer.json", "data"
SECTIONS = ("preset", "text", "n_tokens", "data", "model", "schedule", "optimizer", "loop")
SIZES = ("tiny-1m", "tiny-4m", "tiny-10m", "tiny-30m", "gpt3-small")  # what may be chosen where no model is named
TOKENS_PER_PARAMETER = 20  # compute-optimal: Hoffmann et al. 2022
MAX_EPOCHS = 4  # more passes over the same text gain little: Muennighoff et al. 2023
BUDGET_SECONDS = 15 * 60  # of training, where no length is given
EFFICIENCY = 0.3  # of the machine's matrix-product rate, as small models reach it

Hook = Callable[[TrainState], None]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run needs, resolved."""

    preset: str | None
    data: DataConfig
    model: GPTConfig
    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    loop: LoopConfig


def start(given: Mapping[str, Any], run: Path, *, say: Say, hooks: Sequence[Hook] = ()) -> Iterator[Report]:
    """Make a new run in the folder `run` from what was given, and train it; yields a report a step.

    `given` is a partial configuration: the sections of `RunConfig`, with `text` (paths) and `n_tokens` as
    short-cuts. What it does not say is chosen, and `say` is told what and why.
    """
    if (run / CONFIG).exists():
        raise BadValue(f"{run} already holds a run: continue it with 'fewshot resume {run}', or give another --out")
    config, tokenizer, tokens = prepare(given, run, say=say)
    tokenizer.save(run / TOKENIZER)
    write_yaml(run / CONFIG, to_plain(config))
    yield from _train(config, tokens, run, None, say, hooks)


def resume(
    run: Path, *, say: Say, overrides: Mapping[str, Any] | None = None, hooks: Sequence[Hook] = ()
) -> Iterator[Report]:
    """Go on with the run in `run` from its newest checkpoint, or from its beginning if it has none yet."""
    config = read_run_config(run, overrides)
    tokens = build_tokens(config.data, load_tokenizer(run / TOKENIZER), run / DATA, say=lambda line: None)
    checkpoint = find_checkpoint(run) if any((run / FOLDER).glob("step-*")) else None
    say(f"going on from step {checkpoint.step:,}" if checkpoint else "no checkpoint yet: starting from step 0")
    yield from _train(config, tokens, run, checkpoint, say, hooks)


def read_run_config(run: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The resolved configuration of a run folder, with `overrides` laid over it."""
    if not (run / CONFIG).is_file():
        raise BadFile(f"{run} is not a run: it has no {CONFIG}")
    return from_plain(RunConfig, lay_over(read_yaml(run / CONFIG), overrides or {}), where=str(run / CONFIG))


def prepare(given: Mapping[str, Any], run: Path, *, say: Say) -> tuple[RunConfig, Tokenizer, Tokens]:
    """Resolve what was given into a whole configuration, with the tokenizer and tokens made on the way."""
    for key in given:
        if key not in SECTIONS:
            raise UnknownName("key", key, SECTIONS)
    preset = given.get("preset")
    if preset is not None:
        look_up("preset", preset, PRESETS)
    loop = from_plain(LoopConfig, given.get("loop", {}), where="loop")
    data_given = dict(given.get("data", {}))
    if given.get("text"):
        text = [given["text"]] if isinstance(given["text"], str) else list(given["text"])
        data_given["sources"] = [{"name": "text", "text": text}]
    data = from_plain(DataConfig, data_given, where="data")
    wanted_vocab = given.get("model", {}).get("n_vocab") or (PRESETS[preset].n_vocab if preset in RECIPES else None)
    tokenizer = make_tokenizer(data, n_vocab=wanted_vocab, say=say)
    tokens = build_tokens(data, tokenizer, run / DATA, say=say)
    n_text_tokens = sum(shard.n_tokens for shards in tokens.training for shard in shards)
    if preset is None and "n_layers" not in given.get("model", {}):
        preset = _choose_preset(n_text_tokens, say)
    base = to_plain(PRESETS[preset]) if preset else {}
    shape = lay_over(lay_over(base, {"n_vocab": tokenizer.n_vocab}), given.get("model", {}))
    model = from_plain(GPTConfig, shape, where="model")
    if model.n_vocab < tokenizer.n_vocab:
        raise BadValue(f"model.n_vocab is {model.n_vocab}, below the tokenizer's {tokenizer.n_vocab}: leave it out")
    n_parameters = count_parameters(model)["total"]
    n_tokens = int(float(given["n_tokens"])) if "n_tokens" in given else None
    n_tokens = given.get("schedule", {}).get("n_tokens", n_tokens) or _choose_length(n_parameters, n_text_tokens, say)
    recipe = recipe_for(preset, n_parameters)
    schedule = to_plain(schedule_for(recipe, n_tokens=int(n_tokens), n_ctx=model.n_ctx))
    optimizer = to_plain(optimizer_for(recipe, name="adamw" if preset in RECIPES else "muon"))
    config = RunConfig(
        preset=preset,
        data=data,
        model=model,
        schedule=from_plain(ScheduleConfig, lay_over(schedule, given.get("schedule", {})), where="schedule"),
        optimizer=from_plain(OptimizerConfig, lay_over(optimizer, given.get("optimizer", {})), where="optimizer"),
        loop=loop,
    )
    say(f"model: {preset or 'as configured'}, {n_parameters:,} parameters, {model.n_layers} layers, {model.pattern}")
    say(
        f"training: {config.schedule.n_tokens:,} tokens in batches of {config.schedule.batch_tokens:,}, "
        f"{config.optimizer.name} at {config.optimizer.lr:g}"
    )
    return config, tokenizer, tokens


def _budget_flops() -> float:
    return matmul_flops_per_second(_device()) * EFFICIENCY * BUDGET_SECONDS


def _choose_preset(n_text_tokens: int, say: Say) -> str:
    """The largest size whose compute-optimal training fits the text and a quarter of an hour on this machine."""
    most = min((_budget_flops() / (6 * TOKENS_PER_PARAMETER)) ** 0.5, MAX_EPOCHS * n_text_tokens / TOKENS_PER_PARAMETER)
    fitting = [name for name in SIZES if count_parameters(PRESETS[name])["total"] <= most]
    preset = fitting[-1] if fitting else SIZES[0]
    say(
        f"model: {preset}, by {n_text_tokens:,} tokens of text and a quarter of an hour on this machine (--preset NAME)"
    )
    return preset


def _choose_length(n_parameters: int, n_text_tokens: int, say: Say) -> int:
    """Tokens to train on: 20 a parameter, at most 4 passes over the text and a quarter of an hour."""
    limits = {
        f"{TOKENS_PER_PARAMETER} tokens a parameter": TOKENS_PER_PARAMETER * n_parameters,
        f"{MAX_EPOCHS} passes over the text": MAX_EPOCHS * n_text_tokens,
        f"about {BUDGET_SECONDS // 60} minutes on this machine": int(_budget_flops() / (6 * n_parameters)),
    }
    why = min(limits, key=lambda name: limits[name])
    say(f"length: {limits[why]:,} tokens = {why} (--n_tokens N)")
    return limits[why]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _train(
    config: RunConfig, tokens: Tokens, run: Path, checkpoint: Checkpoint | None, say: Say, hooks: Sequence[Hook]
) -> Iterator[Report]:
    """Build the model and everything around it, and run the loop."""
    device, loop, shape = _device(), config.loop, config.model
    precision = choose_precision(loop.precision, device, d_model=shape.d_model)
    need = Need(
        pattern=shape.schedule().for_layer(min(1, shape.n_layers - 1)),
        device=device,
        dtype=precision.dtype,
        n_queries=shape.n_ctx,
        n_keys=shape.n_ctx,
        documents=loop.document_masking,
        dropout=shape.dropout,
        training=True,
    )
    attend, _ = choose(loop.kernel, need)
    torch.manual_seed(seed_of("weights", loop.seed))
    model = GPT(shape, attend=attend) if checkpoint is None else load_model(checkpoint, attend=attend)
    model.to(torch.device(device))
    problem = compiler_problem(device)
    if loop.compile == "on" and problem:
        raise BadValue(f"loop.compile is on, but {problem}")
    if loop.compile != "off" and problem is None:
        compile_blocks(model)
    validation = Packed(tokens.validation, shape.n_ctx) if tokens.validation else None
    mixture = Mixture(
        tuple(Packed(shards, shape.n_ctx) for shards in tokens.training),
        tuple(source.weight for source in config.data.sources),
        loop.seed,
    )
    say(
        f"device: {device}, {str(precision.dtype).removeprefix('torch.')} ({precision.reason}), "
        f"compiled: {'no, ' + (problem or 'switched off') if problem or loop.compile == 'off' else 'yes'}"
    )
    yield from training(
        model,
        mixture,
        validation,
        schedule=config.schedule,
        optimizer=config.optimizer,
        loop=loop,
        precision=precision,
        micro_rows=loop.micro_rows or fitting_rows(shape, free_bytes=free_memory_bytes(device)),
        run=run,
        resume=checkpoint,
        hooks=hooks,
    )
