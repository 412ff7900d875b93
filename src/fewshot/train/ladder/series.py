"""A ladder: runs of growing size in one folder, of which the smaller ones predict the largest (see prediction.py).

ladder.json               the names of the runs, the smallest first; a folder without it is no ladder
1-of-5/ ... 5-of-5/       run folders, prepared together; the last is the run that was asked for
prediction.json           what the smaller ones say of the last, written before its first step
prediction.json.sha256    the hash of that file, as sha256sum writes it
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.base.config import cast, to_plain, write_yaml
from fewshot.base.dist import from_first
from fewshot.base.errors import check
from fewshot.base.files import read_json, write_json
from fewshot.checkpoint.folder import RunFolder
from fewshot.dataset.prepare import Say
from fewshot.model.footprint.parameters import n_block_parameters, n_parameters
from fewshot.model.machine import machine_device
from fewshot.model.plan import FLOPS_PER_PF_DAY
from fewshot.train.ladder.sizes import LEAST_SIZES, POINTS, shrunk
from fewshot.train.plan import with_micro_rows
from fewshot.train.records.metrics import read_metrics
from fewshot.train.resolving.resolve import RunConfig, data_config, section
from fewshot.train.run import check_given, held, prepare, read_run_config, said_once

RUNS, PREDICTION = "ladder.json", "prediction.json"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a ladder, as far as it has come."""

    name: str
    n_parameters: int
    n_block_parameters: int  # without embeddings and output matrix: what the law counts
    n_tokens: int  # of the whole run
    warmup_tokens: int
    tokens: tuple[int, ...]  # seen at each validation
    losses: tuple[float, ...]  # on validation text, in nats a token
    bits_per_byte: float  # the last of them, in another unit; 0 if there is none
    seconds: float  # of training so far
    is_complete: bool  # and validated after its last step

    def compute(self, tokens: float) -> float:
        """Return the PF-days of so many tokens, embeddings left out. Source: Brown et al. 2020, figure 3.1."""
        return 6 * self.n_block_parameters * tokens / FLOPS_PER_PF_DAY

    def loss_at(self, share: float) -> float:
        """Return the loss after that share of the tokens; between two validations on a line of logarithms."""
        return float(np.exp(np.interp(share * self.n_tokens, self.tokens, np.log(self.losses))))


@dataclass(frozen=True)
class Ladder:
    """A folder of runs, the smallest first."""

    folder: Path
    names: tuple[str, ...]

    @property
    def runs(self) -> tuple[Path, ...]:
        """Their folders."""
        return tuple(self.folder / name for name in self.names)

    @property
    def prediction(self) -> Path:
        """The file of the prediction."""
        return self.folder / PREDICTION


def is_ladder(folder: Path) -> bool:
    """Return whether the folder holds a ladder."""
    return (folder / RUNS).is_file()


def open_ladder(folder: Path) -> Ladder:
    """Return the ladder in a folder."""
    names = cast(read_json(folder / RUNS), tuple[str, ...], f"{folder / RUNS}")
    check(len(names) >= LEAST_SIZES, f"{folder / RUNS} names {len(names)} runs, must be at least {LEAST_SIZES}")
    return Ladder(folder, names)


def make_ladder(given: Mapping[str, Any], folder: Path, *, n_sizes: int, say: Say) -> Ladder:
    """Prepare the runs of a ladder whose last is the one that `given` asks for; nothing is trained yet.

    Text is read and tokenised once. What a killed call left behind, another one may begin anew.
    """
    check(n_sizes >= LEAST_SIZES, f"--ladder is {n_sizes}, must be at least {LEAST_SIZES} sizes")
    check(
        given.get("start") is None, "start is given, but the sizes of a ladder begin with random weights: leave it out"
    )
    check_given(given, folder)
    loop, say = section(given, "loop"), said_once(say)
    check(
        loop.get("validate_every") is None,
        f"loop.validate_every is {loop.get('validate_every')}, but a ladder validates {POINTS} times in every run: "
        "leave it out",
    )
    check(data_config(given).val_fraction > 0, "data.val_fraction is 0, but a ladder compares losses on held-out text")
    with held(folder, doing="fewshot train --ladder"):
        return from_first(lambda: _make(given, folder, n_sizes, say))


def _make(given: Mapping[str, Any], folder: Path, n_sizes: int, say: Say) -> Ladder:
    ladder = Ladder(folder, tuple(f"{i}-of-{n_sizes}" for i in range(1, n_sizes + 1)))
    micro_rows = section(given, "loop").get("micro_rows")
    with RunFolder(folder).making():
        largest = RunFolder(ladder.runs[-1])
        config, _ = prepare(given, largest, say)
        sizes = [shrunk(config, halvings=i) for i in reversed(range(n_sizes))]
        for path, size in zip(ladder.runs, sizes, strict=True):
            size = dataclasses.replace(size, loop=dataclasses.replace(size.loop, micro_rows=micro_rows))
            _write_run(RunFolder(path), with_micro_rows(size, device=machine_device()), largest)
        say(_in_one_line(sizes))
        write_json(folder / RUNS, list(ladder.names))
    return ladder


def _write_run(run: RunFolder, config: RunConfig, source: RunFolder) -> None:
    """Write a run of no steps, with the text and the tokenizer of another; shards are shared where links are known."""
    if run != source:
        shutil.rmtree(run.path, ignore_errors=True)  # what a killed call left: nothing is trained in it
        shutil.copytree(source.data, run.data, copy_function=_link)
        shutil.copyfile(source.tokenizer, run.tokenizer)
    write_yaml(run.config, to_plain(config))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _in_one_line(sizes: Sequence[RunConfig]) -> str:
    models = [size.model for size in sizes]
    work = [n_parameters(size.model) * size.schedule.n_tokens for size in sizes]
    widths = ", ".join(f"{model.d_model}" for model in models)
    return (
        f"ladder: {len(sizes)} sizes of {models[0].n_layers} layers, {widths} wide; the smaller ones together take "
        f"{sum(work[:-1]) / work[-1]:.0%} of the arithmetic of the largest"
    )


def measure(run: Path) -> Measured:
    """Return what a run of a ladder has reached."""
    config, rows = read_run_config(run), read_metrics(RunFolder(run).metrics)
    validated = [row for row in rows if row.get("val_loss") is not None]
    return Measured(
        name=run.name,
        n_parameters=n_parameters(config.model),
        n_block_parameters=n_block_parameters(config.model),
        tokens=tuple(row["tokens"] for row in validated),
        losses=tuple(row["val_loss"] for row in validated),
        bits_per_byte=validated[-1]["val_bits_per_byte"] if validated else 0.0,
        seconds=rows[-1]["seconds"] if rows else 0.0,
        warmup_tokens=config.schedule.warmup_tokens,
        n_tokens=rows[-1]["tokens"] if rows and rows[-1]["step"] == rows[-1]["n_steps"] else config.schedule.n_tokens,
        is_complete=bool(validated) and validated[-1]["step"] == validated[-1]["n_steps"],
    )
