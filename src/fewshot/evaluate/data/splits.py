"""Splits of a set: what is evaluated, what demonstrations come from, where the best K is chosen. Out: episodes.

Knows no task: a family's file says which files hold its splits and how one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fewshot.evaluate.data.files import Data, DataFile, in_layout
from fewshot.evaluate.demonstrations import drawn_episodes, harness_episodes, kept_apart
from fewshot.evaluate.example import DrawEpisodes, Example
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol

ReadExamples = Callable[[DataFile], Sequence[Example]]


@dataclass(frozen=True)
class Split:
    """Examples, and the name of the file or files that held them."""

    name: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Splits:
    """A set's evaluated split with its training and development ones, where their files are there."""

    evaluated: Split
    training: Split | None = None
    dev: Split | None = None
    harness_excludes: bool = False  # as `excluding` of `harness_episodes`

    @property
    def demonstrations(self) -> Split | None:
        """The split that demonstrations come from: training, else development."""
        return self.training or self.dev

    def source(self, protocol: EvalProtocol) -> str:
        """Return where the examples come from, for the report."""
        itself = "the same set" if protocol is HARNESS else "a fifth of it, kept apart"
        return f"{self.evaluated.name}, demonstrations from {(self.demonstrations or Split(itself, ())).name}"

    def episodes(self, task: str, protocol: EvalProtocol, *, fixed: bool = False) -> DrawEpisodes:
        """Return episodes of the evaluated split, with demonstrations drawn as the protocol has it.

        Without any other split the harness draws them from the evaluated one; the paper's form keeps one example in
        five of it for them. `fixed` is as in `drawn_episodes`.
        """
        if protocol is HARNESS:
            pool = (self.demonstrations or self.evaluated).examples
            return harness_episodes(task, self.evaluated.examples, pool, excluding=self.harness_excludes)
        return _episodes(task, self.evaluated, self.demonstrations, fixed=fixed)

    def dev_episodes(self, task: str, protocol: EvalProtocol) -> DrawEpisodes | None:
        """Return episodes of the development split, on which the paper chooses the best K; None in the harness.

        Demonstrations come from the training split, or from a part of the development split.
        """
        return _episodes(task, self.dev, self.training) if self.dev and protocol is GPT3 else None


def _episodes(task: str, evaluated: Split, demonstrations: Split | None, *, fixed: bool = False) -> DrawEpisodes:
    if demonstrations:
        return drawn_episodes(task, evaluated.examples, demonstrations.examples, fixed=fixed)
    return drawn_episodes(task, *kept_apart(task, evaluated.examples), fixed=fixed)


def find_split(data: Data, read: ReadExamples, *ends: str) -> Split | None:
    """Return the split in the first file whose path ends so, or None."""
    file = data.find(*ends)
    return _read(file, read) if file else None


def require_split(task: str, data: Data, read: ReadExamples, *ends: str) -> Split:
    """Return the split that `find_split` gives; where there is none, raise BadFile with the names that would do."""
    return _read(data.require(task, *ends), read)


def _read(file: DataFile, read: ReadExamples) -> Split:
    with in_layout(file, "the original"):
        return Split(file.short, read(file))


def join_splits(splits: Sequence[Split | None]) -> Split | None:
    """Return the examples of all splits that are there, in order; None where none is."""
    there = [split for split in splits if split]
    examples = [example for split in there for example in split.examples]
    return Split(", ".join(split.name for split in there), examples) if there else None
