"""Experiments, as `fewshot meta KIND` runs them: outer loops, then curves on unseen tasks. Has the table of all kinds.

In: the configuration of a kind. Out: curves. The state of each outer loop is a file in the experiment's folder, so that
an experiment that was stopped can be resumed. Knows no command line.

By convention the module of each kind in `meta/tasks/` calls its configuration `Config` and its experiment `Experiment`;
that `Experiment` satisfies the protocol of the same name below.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from fewshot.base.config import from_plain, lay_over, to_plain
from fewshot.base.errors import BadValue, check
from fewshot.base.interrupt import polite_stop
from fewshot.meta.curves import Measured, over_seeds
from fewshot.meta.folder import STATE, resume_loops, save_result
from fewshot.meta.learners.weight_learner import learner_options
from fewshot.meta.outer_loop import OuterLoop
from fewshot.meta.tasks import boolean, languages, linear_attention, markov, omniglot, rare, regression, sinusoid, text

SAVE_EVERY = 60.0  # seconds
MAX_THREADS = 1024


@runtime_checkable
class Experiment(Protocol):
    """Learners on tasks of one kind, as configured."""

    @property
    def loops(self) -> Mapping[str, OuterLoop]:
        """The outer loops by learner, trained one after the other."""
        ...

    @property
    def data(self) -> Mapping[str, str]:
        """The digest of what each path in the settings leads to, by the setting's dotted name."""
        ...

    def watch(self, name: str) -> Mapping[str, float]:
        """Return figures for each logged row of the loop of that name, beside its loss."""
        ...

    def measure(self) -> Measured:
        """Return curves on unseen tasks, after all loops are done."""
        ...


class Seeds:
    """An experiment that is repeated with several seeds; its curves are means over them, with intervals over them."""

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self.experiments = experiments
        self.data = experiments[0].data
        loops = {
            f"{name}_{seed}": (experiment, name, loop)
            for seed, experiment in enumerate(experiments)
            for name, loop in experiment.loops.items()
        }
        self.loops = {numbered: loop for numbered, (_, _, loop) in loops.items()}
        self._watched = {numbered: partial(experiment.watch, name) for numbered, (experiment, name, _) in loops.items()}

    def watch(self, name: str) -> Mapping[str, float]:
        """Return what the experiment of the loop's seed watches."""
        return self._watched[name]()

    def measure(self) -> Measured:
        """Return the curves over all seeds."""
        return over_seeds([experiment.measure() for experiment in self.experiments])


def seeded(experiment: Callable[[Any, int], Experiment]) -> Callable[[Any], Experiment]:
    """Return what makes an experiment from a configuration with `seeds`; `experiment` is given it and a seed's number.

    That of a single seed is the experiment itself, so that names of loops have no number.
    """

    def make(config: Any) -> Experiment:
        made = [experiment(config, seed) for seed in range(config.seeds)]
        return made[0] if len(made) == 1 else Seeds(made)

    return make


# By kind: its configuration, and the experiment that runs it
EXPERIMENTS: Mapping[str, tuple[type, Callable[[Any], Experiment]]] = {
    "sinusoid": (sinusoid.Config, seeded(sinusoid.Experiment)),
    "omniglot": (omniglot.Config, omniglot.Experiment),
    "regression": (regression.Config, seeded(regression.Experiment)),
    "boolean": (boolean.Config, seeded(boolean.Experiment)),
    "markov": (markov.Config, seeded(markov.Experiment)),
    "rare": (rare.Config, rare.Experiment),
    "step": (linear_attention.Config, linear_attention.Experiment),
    "text": (text.Config, text.Experiment),
    "languages": (languages.Config, languages.Experiment),
}


def configure(kind: str, given: Mapping[str, Any]) -> Any:
    """Return the configuration of a kind: the given settings over its defaults.

    A learner's name stands for the options that make it.
    """
    learner = given.get("learner")
    if isinstance(learner, Mapping) and "name" in learner:
        given = {**given, "learner": lay_over(learner_options(learner["name"]), learner)}
    config = EXPERIMENTS[kind][0]
    if learner is not None and not any(field.name == "learner" for field in dataclasses.fields(config)):
        raise BadValue(f"{kind} has no learner to choose, found {learner!r}: leave --learner out")
    return from_plain(config, lay_over(to_plain(config()), given), where=kind)


def prepare(kind: str, config: Any) -> Experiment:
    """Return the experiment of a configuration, and set the number of threads that it asks for."""
    check(config.threads <= MAX_THREADS, f"threads is {config.threads}, must be at most {MAX_THREADS}")
    torch.set_num_threads(config.threads)
    return EXPERIMENTS[kind][1](config)


def train(
    experiment: Experiment,
    folder: Path,
    *,
    about: Mapping[str, Any],
    on_progress: Callable[[str, int], None] = lambda name, iteration: None,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield (loop's name, row of figures) while every loop runs from its saved state to its end.

    The state is written every minute, at the end and on a signal, which takes effect as KeyboardInterrupt after the
    present iteration is done and written. It is not written in the middle of an iteration, nor after it diverged.
    `on_progress` is called with the loop's name and iteration before each iteration.
    """
    resume_loops(experiment.loops, folder, about=about)
    for name, loop in experiment.loops.items():
        if loop.is_done:
            continue
        path = folder / f"{name}{STATE}"
        with polite_stop("this iteration") as request:
            try:
                while not (loop.is_done or request.asked):
                    first, due = loop.iteration, time.monotonic() + SAVE_EVERY

                    def pauses(name: str = name, loop: OuterLoop = loop, first: int = first, due: float = due) -> bool:
                        on_progress(name, loop.iteration)
                        return request.asked or (loop.iteration > first and time.monotonic() > due)

                    for row in loop.run(partial(experiment.watch, name), stop=pauses):
                        yield name, row
                    if not (loop.is_done or request.asked):
                        loop.save(path, about=about)
            finally:
                if loop.is_whole:
                    loop.save(path, about=about)
        if request.asked:
            raise KeyboardInterrupt


def measure(experiment: Experiment, folder: Path, *, about: Mapping[str, Any]) -> Measured:
    """Return the experiment's curves, and write them as the folder's result with settings and history."""
    history = {name: loop.history for name, loop in experiment.loops.items()}
    about = {**about, "data": dict(experiment.data)} if experiment.data else dict(about)
    measured = replace(experiment.measure(), history=history, about=about)
    save_result(folder, measured)
    return measured
