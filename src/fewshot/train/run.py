"""A run as a whole: start a new one, resume an old one. In: a partial configuration. Out: a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewshot.base.config import from_plain, lay_over, to_plain, write_yaml
from fewshot.base.dist import all_processes, n_ranks
from fewshot.base.errors import BadValue
from fewshot.base.lock import hold
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import newest_whole
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.corpus.sources import check_paths
from fewshot.dataset.prepare import DataConfig, Say, build_tokens, load_tokens, make_tokenizer, measure_text
from fewshot.model.machine import machine_device
from fewshot.train.build import Setup, build
from fewshot.train.loop import train
from fewshot.train.metrics import StepMetrics
from fewshot.train.plan import check_early, check_whole, is_sure, with_micro_rows
from fewshot.train.resolving.resolve import RunConfig, check_sections, data_config, resolve, section, wanted_vocab
from fewshot.train.schedule import count_steps

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


def start(given: Mapping[str, Any], run: Path, *, say: Say) -> Iterator[StepMetrics]:
    """Make a new run in the folder `run` from what was given and train it; yield the metrics of every step.

    `given` is a partial configuration: the sections of `RunConfig`, with `text` (paths) and `n_tokens` as
    short-cuts. Values that it does not hold are chosen, and `say` is told which and why.
    """
    _check_is_one_process()
    RunFolder(run).check_is_new()  # before a lock is put there, too
    check_sections(given)
    data = data_config(given)
    check_early(given, data, device=machine_device())
    _check_text(data, run)
    with hold(run, doing="fewshot train"):
        yield from start_held(given, run, say=say)


def start_held(given: Mapping[str, Any], run: Path, *, say: Say) -> Iterator[StepMetrics]:
    """Do what `start` does, in a folder that the caller holds."""
    folder = RunFolder(run)
    with folder.making():
        setup = _prepare(given, folder, say)
    yield from train(setup, folder)


def resume(run: Path, *, say: Say, overrides: Mapping[str, Any] | None = None) -> Iterator[StepMetrics]:
    """Go on with the run in `run` from its newest checkpoint, or from its beginning if it has none yet."""
    _check_is_one_process()
    overrides = overrides or {}
    given = set(overrides) - {"loop"} | {f"loop.{key}" for key in section(overrides, "loop")}
    if refused := sorted(given - set(MAY_CHANGE)):
        raise BadValue(f"{', '.join(refused)} cannot change when a run is resumed; only {', '.join(MAY_CHANGE)} can")
    folder = RunFolder(run)
    folder.check_can_go_on()
    with hold(run, doing="fewshot resume"):
        plain = folder.read_config()
        stored, config = (_run_config(layered, folder) for layered in (plain, lay_over(plain, overrides)))
        checkpoint = _newest_checkpoint(folder, say)
        tokens = load_tokens(config.data, folder.data)
        say(_where_it_stands(run, checkpoint, count_steps(config.schedule, n_ctx=config.model.n_ctx)))
        setup = build(config, tokens, checkpoint=checkpoint, say=say)
        _store_choices(stored, setup.config, folder)
        yield from train(setup, folder, resume=checkpoint)


def read_run_config(run: Path) -> RunConfig:
    """Return the resolved configuration of a run folder; a folder without one raises `BadFile`."""
    return _run_config(RunFolder(run).read_config(), RunFolder(run))


def _prepare(given: Mapping[str, Any], run: RunFolder, say: Say) -> Setup:
    """Make everything of a run but its training: its tokens, its tokenizer and its configuration, in this order."""
    data, device = data_config(given), machine_device()
    measured = measure_text(data, say=say)
    tokenizer = make_tokenizer(data, measured, n_vocab=wanted_vocab(given), say=say)
    tokens = build_tokens(data, measured, tokenizer, run.data, say=say)
    n_text_tokens = sum(shard.n_tokens for shards in tokens.training for shard in shards)
    config = resolve(given, data, n_vocab=tokenizer.n_vocab, n_text_tokens=n_text_tokens, device=device, say=say)
    check_whole(config, device=device, sure=is_sure(given), say=say)
    setup = build(with_micro_rows(config, device=device), tokens, say=say)
    tokenizer.save(run.tokenizer)
    write_yaml(run.config, to_plain(setup.config))
    return setup


def _check_is_one_process() -> None:
    """Raise `BadValue` under torchrun: its processes would all write the same run."""
    if n_ranks() > 1:
        raise BadValue(
            f"training in several processes is not supported yet, and this is one of {n_ranks()} (WORLD_SIZE): "
            "start fewshot once, without torchrun"
        )


def _check_text(data: DataConfig, run: Path) -> None:
    """Raise for text that is not there, and for a run folder inside a folder of text."""
    for path in (path for source in data.sources for path in check_paths(source.text)):
        if path.is_dir() and run.resolve().is_relative_to(path.resolve()):
            raise BadValue(f"{run} lies in the folder of text {path}, and would be read as text: give another --out")


def _run_config(plain: Mapping[str, Any], run: RunFolder) -> RunConfig:
    """Return a configuration that was read from the run's file."""
    return from_plain(RunConfig, plain, where=str(run.config))


def _newest_checkpoint(run: RunFolder, say: Say) -> Checkpoint | None:
    """Return the newest whole checkpoint; None only if there is nothing that might be one. Every process must call it.

    `say` is told if newer ones are damaged.
    """
    if not run.checkpoint_folders() and not any(run.checkpoints.glob("[!.]*")):
        return None
    checkpoint, damage = newest_whole(run, processes=all_processes())
    if damage:
        say(f"{damage}; going on from step {checkpoint.step:,} instead")
    return checkpoint


def _where_it_stands(run: Path, checkpoint: Checkpoint | None, n_steps: int) -> str:
    """Return a line about how far a resumed run has come."""
    if checkpoint is None:
        return "no checkpoint yet: starting from step 0"
    if checkpoint.step >= n_steps:
        return f"{run} is complete: all of its {n_steps:,} steps are done"
    return f"continuing from step {checkpoint.step:,} of {n_steps:,}"


def _store_choices(stored: RunConfig, config: RunConfig, run: RunFolder) -> None:
    """Write to config.yaml which kernel, precision and compilation a run goes on with, if they changed.

    Other values given to `resume` count for this time only.
    """
    loop = dataclasses.replace(
        stored.loop, kernel=config.loop.kernel, precision=config.loop.precision, compile=config.loop.compile
    )
    if loop != stored.loop:
        write_yaml(run.config, to_plain(dataclasses.replace(stored, loop=loop)))
