"""A finding as a YAML file: what a paper claims, the commands that show it here, and statements that must then hold.

    title: Few tasks are retrieved, many are inferred
    paper: {claim: ..., source: ..., numbers: ..., differs: ...}
    minutes: 2
    seeds: 5
    command: meta markov                    # words behind `fewshot`; {out} is a folder of the run
    base: runs/{run}.yaml                   # if given: a configuration that the next one is laid over
    config: {length: 100}                   # of all runs, as its --config
    runs: {few: {n_known: 4}, many: {n_known: 512}}
    expect:
      - {value: "few.curves[learner=context].points[n_examples=64]", at_most: 0.05}
      - {value: few.loss, above: many.loss, by: 0.1, says: few tasks cost more on fresh chains}

A command that has {seed} in it is run once for each seed, and its results are `run.0`, `run.1`, ...; of others the
configuration gets `seeds`. `prepare` holds commands that are run before it, once for all runs of all findings that name
the same; {prepared} is their folder, in them and in the command. {run} is the run's name in both. Knows neither results
nor how to run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot.base.config import from_plain, lay_over, read_yaml
from fewshot.base.errors import BadFile, check, check_counts

NAME = re.compile(r"[a-z0-9_]+")  # of a run: a folder, and the beginning of a path
SEED, RUN = "{seed}", "{run}"
PREPARED = "{prepared}"


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What was published, and what differs here."""

    claim: str
    source: str  # authors, year, figure or section
    numbers: str = ""  # those of the paper
    differs: str = ""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A claim about values of the results, which are given as paths."""

    value: str
    at_least: float | None = None
    at_most: float | None = None
    above: str | None = None  # a path; the first of these that is given is what must hold, with those beside it
    times: float = 1.0  # `above` is multiplied by it
    by: float = 0.0  # margin of `above`
    apart: bool = False  # the 95% intervals of `value` and `above` must not overlap
    seeds: int | None = None  # bounds must hold for so many of the values, not for their mean
    says: str = ""  # in words
    not_shown: str = ""  # why it does not hold here, where that is known: it is told, and fails nothing

    def __post_init__(self) -> None:
        given = [name for name in ("at_least", "at_most", "above") if getattr(self, name) is not None]
        check(bool(given), f"the statement about {self.value} asks nothing: give at_least, at_most or above")
        bounds = (self.at_least, self.at_most)
        check(
            None in bounds or self.at_least <= self.at_most,  # type: ignore[operator]
            f"the statement about {self.value} has at_least {self.at_least} over at_most {self.at_most}",
        )
        if self.above is None:
            alone = not self.by and not self.apart and self.times == 1
            check(alone, f"the statement about {self.value} has times, by or apart without above")
        if self.seeds is not None:
            check_counts(self, "seeds")
            check(self.above is None, f"the statement about {self.value} has seeds and above: give bounds with seeds")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding; see the module's docstring."""

    title: str
    paper: Paper
    minutes: float  # of one core, all runs together
    seeds: int = 1
    command: str
    prepare: tuple[str, ...] = ()
    base: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any]
    expect: tuple[Statement, ...]

    def __post_init__(self) -> None:
        check_counts(self, "seeds")
        check(self.minutes > 0, f"minutes is {self.minutes}, must be above 0")
        check(bool(self.command.split()), "command is empty: give the words behind 'fewshot'")
        check(
            all(PREPARED in text for text in self.prepare),
            f"prepare is {list(self.prepare)}: each must write to {PREPARED}, where all runs that name it find it",
        )
        check(bool(self.runs), "runs is empty: name at least one")
        for name, config in self.runs.items():
            check(bool(NAME.fullmatch(str(name))), f"the run {name!r} must be named by a-z, 0-9 and _")
            check(
                config is None or isinstance(config, Mapping), f"runs.{name} is {config!r}, must hold keys and values"
            )
        check(bool(self.expect), "expect is empty: a finding without a statement cannot fail")

    def tasks(self) -> dict[str, RunTask]:
        """Return what to run, by the path that its result has."""
        own_seeds = SEED in " ".join([self.command, *self.prepare])
        tasks: dict[str, RunTask] = {}
        for name, given in self.runs.items():
            base = read_yaml(Path(self.base.replace(RUN, name))) if self.base else {}
            config = lay_over(base, lay_over(self.config, given or {}))
            if own_seeds:
                tasks |= {f"{name}.{seed}": self._task(name, config, seed) for seed in range(self.seeds)}
            else:
                tasks[name] = self._task(name, {**config, "seeds": self.seeds} if self.seeds > 1 else config, 0)
        return tasks

    def _task(self, run: str, config: Mapping[str, Any], seed: int) -> RunTask:
        texts = (*self.prepare, self.command)
        commands = [text.replace(SEED, str(seed)).replace(RUN, run) for text in texts]
        return RunTask(commands=tuple(commands), config=dict(config))


@dataclass(frozen=True, kw_only=True)
class RunTask:
    """Commands of one run, the last of which prints its result; `config` is the last one's configuration."""

    commands: tuple[str, ...]
    config: dict[str, Any]


def read_finding(path: Path) -> Finding:
    """Return the finding in a file; raises BadFile or BadValue with the file's name."""
    return from_plain(Finding, read_yaml(path), where=str(path))


def finding_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that were named, and those in the folders that were named; raises BadFile if there are none."""
    files = []
    for path in paths:
        if not path.exists():
            raise BadFile(f"{path} does not exist: name a finding's .yaml file, or a folder of them")
        if path.is_file():
            files.append(path)
            continue
        inside = sorted(path.glob("*.yaml"))
        if not inside:
            raise BadFile(f"{path} holds no .yaml file: name a folder of findings, such as runs/zoo")
        files += inside
    return list({path.resolve(): path for path in files}.values())
