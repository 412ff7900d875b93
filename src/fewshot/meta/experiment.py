"""What `fewshot meta KIND` runs: outer loops, then curves on unseen tasks. A table of all kinds.

In: a configuration of the kind. Out: what was measured. State lies in a folder, a file for each loop, so that a run
that was stopped goes on. Knows no command line.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from fewshot.base.config import from_plain, lay_over, to_plain
from fewshot.base.errors import BadValue, check
from fewshot.base.interrupt import polite_stop
from fewshot.meta.curves import Measured
from fewshot.meta.folder import STATE, keep, take_up
from fewshot.meta.learners.weight_learner import named
from fewshot.meta.outer_loop import OuterLoop
from fewshot.meta.tasks import markov, omniglot, regression, sinusoid, text

SAVE_EVERY = 60.0  # seconds
MOST_THREADS = 1024


@runtime_checkable
class Experiment(Protocol):
    """One kind of task with its learners, configured."""

    @property
    def loops(self) -> Mapping[str, OuterLoop]:
        """The outer loops by learner, trained in turn."""
        ...

    @property
    def data(self) -> Mapping[str, str]:
        """Of each setting that is a path, by dotted name, a digest of what lies there."""
        ...

    def watch(self, name: str) -> Mapping[str, float]:
        """Return figures to take at each report of the loop of that name."""
        ...

    def measure(self) -> Measured:
        """Return curves on unseen tasks, when all loops are done."""
        ...


# Of each kind its configuration, and what runs it
KINDS: Mapping[str, tuple[type, Callable[[Any], Experiment]]] = {
    "sinusoid": (sinusoid.Config, sinusoid.Experiment),
    "omniglot": (omniglot.Config, omniglot.Experiment),
    "regression": (regression.Config, regression.Experiment),
    "markov": (markov.Config, markov.Experiment),
    "text": (text.Config, text.Experiment),
}


def configure(kind: str, given: Mapping[str, Any]) -> Any:
    """Return the configuration of a kind from what is given, over its defaults; a learner's name stands for its
    options.
    """
    learner = given.get("learner")
    if isinstance(learner, Mapping) and "name" in learner:
        given = {**given, "learner": lay_over(named(learner["name"]), learner)}
    config = KINDS[kind][0]
    if learner is not None and not any(field.name == "learner" for field in dataclasses.fields(config)):
        raise BadValue(f"{kind} has no learner to choose, found {learner!r}: leave --learner out")
    return from_plain(config, lay_over(to_plain(config()), given), where=kind)


def prepare(kind: str, config: Any) -> Experiment:
    """Return what runs a configuration, with as many threads as it says."""
    check(config.threads <= MOST_THREADS, f"threads is {config.threads}, must be at most {MOST_THREADS}")
    torch.set_num_threads(config.threads)
    return KINDS[kind][1](config)


def train(
    experiment: Experiment,
    folder: Path,
    *,
    about: Mapping[str, Any],
    on_progress: Callable[[str, int], None] = lambda name, iteration: None,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Run every loop to its end, from where its file in the folder is; yields (loop's name, row of figures).

    State is written every minute, at the end, and when it is broken off: a signal takes effect, as KeyboardInterrupt,
    when the outer loop's iteration at hand is whole and written. Nothing is written where it is not, or has diverged.
    `on_progress` is told the loop and its iteration before each.
    """
    take_up(experiment.loops, folder, about=about)
    for name, loop in experiment.loops.items():
        if loop.is_done:
            continue
        path = folder / f"{name}{STATE}"
        with polite_stop("this iteration") as request:
            try:
                while not (loop.is_done or request.asked):
                    begun, due = loop.iteration, time.monotonic() + SAVE_EVERY

                    def pauses(name: str = name, loop: OuterLoop = loop, begun: int = begun, due: float = due) -> bool:
                        on_progress(name, loop.iteration)
                        return request.asked or (loop.iteration > begun and time.monotonic() > due)

                    for row in loop.run(functools.partial(experiment.watch, name), stop=pauses):
                        yield name, row
                    if not (loop.is_done or request.asked):
                        loop.save(path, about=about)
            finally:
                if loop.is_whole:
                    loop.save(path, about=about)
        if request.asked:
            raise KeyboardInterrupt


def measure(experiment: Experiment, folder: Path, *, about: Mapping[str, Any]) -> Measured:
    """Take the curves and keep them in the folder's result, with what they are about."""
    history = {name: loop.history for name, loop in experiment.loops.items()}
    about = {**about, "data": dict(experiment.data)} if experiment.data else dict(about)
    measured = replace(experiment.measure(), history=history, about=about)
    keep(folder, measured)
    return measured
