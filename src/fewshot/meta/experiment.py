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
from fewshot.base.files import write_json
from fewshot.base.interrupt import polite_stop
from fewshot.meta import markov, omniglot, regression, sinusoid, text
from fewshot.meta.learn import named
from fewshot.meta.measure import Measured, to_json
from fewshot.meta.outer import OuterLoop

RESULT = "result.json"
SAVE_EVERY = 60.0  # seconds
MOST_THREADS = 1024


@runtime_checkable
class Experiment(Protocol):
    """One kind of task with its learners, configured."""

    @property
    def loops(self) -> Mapping[str, OuterLoop]:
        """The outer loops by learner, trained in turn."""
        ...

    def watch(self, name: str) -> Mapping[str, float]:
        """Figures to take at each report of the loop of that name."""
        ...

    def measure(self) -> Measured:
        """Curves on unseen tasks, when all loops are done."""
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
    """The configuration of a kind from what is given, over its defaults; a learner's name stands for its options."""
    learner = given.get("learner")
    if isinstance(learner, Mapping) and "name" in learner:
        given = {**given, "learner": lay_over(named(learner["name"]), learner)}
    config = KINDS[kind][0]
    if learner is not None and not any(field.name == "learner" for field in dataclasses.fields(config)):
        raise BadValue(f"{kind} has no learner to choose, found {learner!r}: leave --learner out")
    return from_plain(config, lay_over(to_plain(config()), given), where=kind)


def prepare(kind: str, config: Any) -> Experiment:
    """What runs a configuration, with as many threads as it says."""
    check(config.threads <= MOST_THREADS, f"threads is {config.threads}, must be at most {MOST_THREADS}")
    torch.set_num_threads(config.threads)
    return KINDS[kind][1](config)


def about_training(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those of the test, which may change when training is done."""
    return {name: value for name, value in settings.items() if not name.startswith("test")}


def train(experiment: Experiment, folder: Path, *, about: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Run every loop to its end, from where its file in the folder is; yields (loop's name, row of figures).

    State is written every minute, at the end, and when it is broken off: Ctrl-C takes effect, as KeyboardInterrupt,
    when the outer loop's iteration at hand is whole. Nothing is written where it is not, or has diverged.
    """
    for name, loop in experiment.loops.items():
        path = folder / f"{name}.safetensors"
        if path.is_file():
            loop.load(path, about=about)
        if loop.iteration == loop.config.n_iterations:
            continue
        saved = time.monotonic()
        with polite_stop() as request:
            try:
                for row in loop.run(functools.partial(experiment.watch, name), stop=lambda: request.asked):
                    yield name, row
                    if time.monotonic() - saved > SAVE_EVERY:
                        loop.save(path, about=about)
                        saved = time.monotonic()
            finally:
                if loop.is_whole:
                    loop.save(path, about=about)
        if request.asked:
            raise KeyboardInterrupt


def measure(experiment: Experiment, folder: Path, *, about: Mapping[str, Any]) -> Measured:
    """Take the curves and keep them in the folder's result, with what they are about."""
    history = {name: loop.history for name, loop in experiment.loops.items()}
    measured = replace(experiment.measure(), history=history, about=dict(about))
    write_json(folder / RESULT, to_json(measured))
    return measured
