"""A run as a whole: start a new one, resume an old one. In: a partial configuration. Out: a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewshot.base.config import from_plain, lay_over, to_plain, write_yaml
from fewshot.base.dist import all_processes, from_first, n_ranks, rank
from fewshot.base.errors import BadValue
from fewshot.base.lock import hold
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import newest_whole
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.corpus.sources import check_paths
from fewshot.dataset.prepare import DataConfig, Say, Tokens, build_tokens, load_tokens, make_tokenizer, measure_text
from fewshot.model.gpt import GPT
from fewshot.model.machine import machine_device
from fewshot.train.begin import begin, save_beginning
from fewshot.train.build import build, check_layout, decide
from fewshot.train.config import ParallelConfig
from fewshot.train.loop import Watch, train
from fewshot.train.parallel.mesh import layout_of
from fewshot.train.plan import check_early, check_whole, is_sure, with_micro_rows
from fewshot.train.records.metrics import StepMetrics
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
    "loop.spike_factor",
    "loop.validate_every",
    "parallel.cp",
    "parallel.dp",
    "parallel.fsdp",
    "parallel.pp",
    "parallel.tp",
)


def start(given: Mapping[str, Any], run: Path, *, say: Say, watch: Watch | None = None) -> Iterator[StepMetrics]:
    """Make a new run in the folder `run` from what was given and train it; yield the metrics of every step.

    `given` is a partial configuration: the sections of `RunConfig`, with `text` (paths) and `n_tokens` as
    short-cuts, and `start`, the model to begin with. Values that it does not hold are chosen, and `say` is told which
    and why. Under torchrun every process
    calls this; the first one alone reads text and writes files that are not its own part of a checkpoint. `watch` is
    called with the model and the metrics after every step.
    """
    model = None
    if rank() == 0:
        RunFolder(run).check_is_new()  # before a large model is read
        given, model = begin(given, say=say)
    check_given(given, run)
    with held(run, doing="fewshot train"):
        yield from start_held(given, run, say=say, watch=watch, model=model)


def check_given(given: Mapping[str, Any], folder: Path) -> None:
    """Raise for what cannot be trained, or not in that folder, before anything long begins; nothing is written."""
    layout_of(from_plain(ParallelConfig, section(given, "parallel"), where="parallel"))
    if rank() == 0:
        RunFolder(folder).check_is_new()  # before a lock is put there, too
        check_sections(given)
        data = data_config(given)
        check_early(given, data, device=machine_device())
        _check_text(data, folder)


def start_held(
    given: Mapping[str, Any], run: Path, *, say: Say, watch: Watch | None = None, model: GPT | None = None
) -> Iterator[StepMetrics]:
    """Do what `start` does, in a folder that the caller holds; `model` is what the first process begins with."""
    folder, say = RunFolder(run), said_once(say)
    with folder.making() if rank() == 0 else contextlib.nullcontext():
        config, tokens = from_first(lambda: prepare(given, folder, say, model=model))
        beginning = _newest_checkpoint(folder, say) if config.start is not None else None
        setup = build(config, tokens, layout=layout_of(config.parallel), checkpoint=beginning, say=say)
        if rank() == 0:
            write_yaml(folder.config, to_plain(config))
    yield from train(setup, folder, resume=beginning, watch=watch)


def resume(
    run: Path, *, say: Say, overrides: Mapping[str, Any] | None = None, watch: Watch | None = None
) -> Iterator[StepMetrics]:
    """Go on with the run in `run` from its newest checkpoint, or from its beginning if it has none yet.

    Any number of processes, in any layout, goes on with what any other has done.
    """
    overrides, say = overrides or {}, said_once(say)
    _check_may_change(overrides)
    folder = RunFolder(run)
    folder.check_can_go_on()
    with held(run, doing="fewshot resume"):
        stored, config = from_first(lambda: _as_it_was(folder, overrides, say))
        layout = layout_of(config.parallel)
        check_layout(config, layout)
        checkpoint = _newest_checkpoint(folder, say)
        tokens = from_first(lambda: load_tokens(config.data, folder.data))
        say(_where_it_stands(run, checkpoint, count_steps(config.schedule, n_ctx=config.model.n_ctx)))
        config = from_first(lambda: _decided_again(stored, config, folder, say))
        setup = build(config, tokens, layout=layout, checkpoint=checkpoint, say=say)
        yield from train(setup, folder, resume=checkpoint, watch=watch)


def read_run_config(run: Path) -> RunConfig:
    """Return the resolved configuration of a run folder; a folder without one raises `BadFile`."""
    return _run_config(RunFolder(run).read_config(), RunFolder(run))


def prepare(
    given: Mapping[str, Any], run: RunFolder, say: Say, *, model: GPT | None = None
) -> tuple[RunConfig, Tokens]:
    """Make everything of a run but its training: its tokens, its tokenizer and its configuration, in this order.

    And its beginning, if that is a model.
    """
    data, device = data_config(given), machine_device()
    measured = measure_text(data, say=say)
    tokenizer = make_tokenizer(data, measured, n_vocab=wanted_vocab(given), say=say)
    tokens = build_tokens(data, measured, tokenizer, run.data, say=say)
    n_text_tokens = sum(shard.n_tokens for shards in tokens.training for shard in shards)
    config = resolve(given, data, n_vocab=tokenizer.n_vocab, n_text_tokens=n_text_tokens, device=device, say=say)
    layout = layout_of(config.parallel)
    check_layout(config, layout)
    check_whole(config, device=device, sure=is_sure(given), say=say)
    tokenizer.save(run.tokenizer)
    if model is not None:
        save_beginning(run, model, config.model)
    return decide(with_micro_rows(config, device=device), say=say), tokens


def _as_it_was(run: RunFolder, overrides: Mapping[str, Any], say: Say) -> tuple[RunConfig, RunConfig]:
    """Return the configuration that a run had, and the one that it goes on with."""
    plain = run.read_config()
    stored, config = (_run_config(layered, run) for layered in (plain, lay_over(plain, overrides)))
    if "parallel" not in overrides:
        config = dataclasses.replace(config, parallel=_layout_here(stored.parallel, say))
    return stored, config


def _decided_again(stored: RunConfig, config: RunConfig, run: RunFolder, say: Say) -> RunConfig:
    """Return the configuration with every choice made anew where it was "auto"; config.yaml gets what changed."""
    config = decide(config, say=say)
    _store_choices(stored, config, run)
    return config


def _layout_here(stored: ParallelConfig, say: Say) -> ParallelConfig:
    """Return the layout that a run had, or, where the processes are not as many, one that spreads it over all."""
    n, sizes = n_ranks(), [stored.dp, stored.fsdp or 1, stored.tp, stored.pp, stored.cp]
    if math.prod(sizes) == n or (stored.fsdp is None and n % math.prod(sizes) == 0):
        return stored
    say(f"parallel: fsdp over {n} processes; the run had {math.prod(sizes)} (--parallel.fsdp, tp, pp, cp)")
    return ParallelConfig(exact=stored.exact)


def _check_may_change(overrides: Mapping[str, Any]) -> None:
    """Raise `BadValue` for what cannot change when a run is resumed."""
    given = {name for name in overrides if name not in ("loop", "parallel")}
    given |= {f"{name}.{key}" for name in ("loop", "parallel") for key in section(overrides, name)}
    if refused := sorted(given - set(MAY_CHANGE)):
        raise BadValue(f"{', '.join(refused)} cannot change when a run is resumed; only {', '.join(MAY_CHANGE)} can")


def held(run: Path, *, doing: str) -> contextlib.AbstractContextManager[None]:
    """Return the block in which the first process holds the run's folder, for all of them."""
    return hold(run, doing=doing) if rank() == 0 else contextlib.nullcontext()


def said_once(say: Say) -> Say:
    """Return `say` for the first process, silence for the others."""
    return say if rank() == 0 else lambda line: None


def _check_text(data: DataConfig, run: Path) -> None:
    """Raise for text that is not there, and for a run folder inside a folder of text."""
    for path in (path for source in data.sources for path in check_paths(source.text)):
        if path.is_dir() and run.resolve().is_relative_to(path.resolve()):
            raise BadValue(f"{run} lies in the folder of text {path}, and would be read as text: give another --out")


def _run_config(plain: Mapping[str, Any], run: RunFolder) -> RunConfig:
    """Return a configuration that was read from the run's file; older ones have true or false for `recompute`."""
    loop = section(plain, "loop")
    if isinstance(loop.get("recompute"), bool):
        plain = lay_over(plain, {"loop": {"recompute": "full" if loop["recompute"] else "none"}})
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
