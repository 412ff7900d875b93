"""Splits of a set: what is evaluated, what is shown, and where the best K is found. In: files. Out: episodes.

Knows no task: a family's file says which files hold its splits and how one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fewshot.base.errors import BadValue
from fewshot.evaluate.data.files import Data, Found, laid_out
from fewshot.evaluate.demonstrations import drawn_episodes, harness_episodes, kept_apart
from fewshot.evaluate.example import DrawEpisodes, Example
from fewshot.evaluate.protocol import HARNESS, EvalProtocol

ReadExamples = Callable[[Found], Sequence[Example]]


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
    def shown(self) -> Split | None:
        """The split that demonstrations come from: training, else development."""
        return self.training or self.dev

    def source(self, protocol: EvalProtocol) -> str:
        """Where the examples come from, for the report."""
        itself = "the same set" if protocol is HARNESS else "a fifth of it, kept apart"
        return f"{self.evaluated.name}, demonstrations from {self.shown.name if self.shown else itself}"

    def episodes(self, task: str, protocol: EvalProtocol) -> DrawEpisodes:
        """Return episodes of the evaluated split; without any other split one example in five is kept for
        demonstrations.
        """
        if protocol is HARNESS:
            shown = (self.shown or self.evaluated).examples
            return harness_episodes(task, self.evaluated.examples, shown, excluding=self.harness_excludes)
        return _episodes(task, self.evaluated, self.shown)

    def dev_episodes(self, task: str) -> DrawEpisodes | None:
        """Return episodes of the development split, with the training split's demonstrations or some of its own."""
        return _episodes(task, self.dev, self.training) if self.dev else None


def _episodes(task: str, evaluated: Split, shown: Split | None) -> DrawEpisodes:
    if shown:
        return drawn_episodes(task, evaluated.examples, shown.examples)
    return drawn_episodes(task, *kept_apart(task, evaluated.examples))


def find_split(data: Data, read: ReadExamples, *ends: str) -> Split | None:
    """Return the split in the first file whose path ends so, or None."""
    file = data.find(*ends)
    return _read(file, read) if file else None


def need_split(task: str, data: Data, read: ReadExamples, *ends: str) -> Split:
    """As `find_split`, but a file that is missing raises BadFile with the names that would do."""
    return _read(data.need(task, *ends), read)


def _read(file: Found, read: ReadExamples) -> Split:
    with laid_out(file, "the original"):
        return Split(file.short, read(file))


def joined(splits: Sequence[Split | None]) -> Split | None:
    """Return the examples of all splits that are there, in order; None where none is."""
    there = [split for split in splits if split]
    examples = [example for split in there for example in split.examples]
    return Split(", ".join(split.name for split in there), examples) if there else None


def refuse_harness(task: str, protocol: EvalProtocol) -> None:
    """Raise BadValue under lm-eval's protocol, for a task that the harness has not."""
    if protocol is HARNESS:
        raise BadValue(f"{task} is no task of lm-evaluation-harness 0.4.13: use --protocol gpt3")
