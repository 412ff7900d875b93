"""Passages with several questions each. In: a file's passages. Out: their examples, asked or shown, in splits.

Every question of an evaluated passage is an example; as a demonstration a passage is shown once, with all its
questions answered. Without a training file one passage in five is kept for demonstrations, so that none of the
evaluated ones is shown. Knows no task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fewshot.evaluate.data.files import Data, Found
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.demonstrations import kept_apart
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import HARNESS, EvalProtocol


class Passage(Protocol):
    """Examples that belong together; made only when they are asked for, as training files are large."""

    @property
    def asked(self) -> Sequence[Example]:
        """The examples that it is evaluated by."""

    @property
    def shown(self) -> Sequence[Example]:
        """Those that show it as a demonstration."""


@dataclass(frozen=True)
class Separate:
    """A passage whose questions know nothing of each other."""

    examples: tuple[Example, ...]

    @property
    def asked(self) -> tuple[Example, ...]:
        """Each question."""
        return self.examples

    @property
    def shown(self) -> tuple[Example, ...]:
        """Each question."""
        return self.examples


@dataclass(frozen=True)
class Turn:
    """One question about a passage; its first answer is the one that later turns and demonstrations show."""

    id: str
    question: str
    answers: tuple[str, ...]
    references: Any = None  # what measures compare an answer with


@dataclass(frozen=True)
class Dialogue:
    """A passage and its turns, `Q: ...` and `A: ...` between blank lines, each after those before it with answers.

    Source: Brown et al. 2020, appendix G (CoQA, QuAC, SQuADv2).
    """

    passage: str
    turns: tuple[Turn, ...]

    @property
    def asked(self) -> list[Example]:
        """Every turn."""
        examples, text = [], self.passage
        for turn in self.turns:
            text += f"\n\nQ: {turn.question}\n\nA:"
            answers = tuple(f" {answer}" for answer in turn.answers)
            examples.append(Example(turn.id, text, answers, references=turn.references))
            text += answers[0]
        return examples

    @property
    def shown(self) -> list[Example]:
        """The last turn, with all others before it."""
        return self.asked[-1:]


ReadPassages = Callable[[Found], Sequence[Passage]]


def passage_splits(
    task: str,
    data: Data,
    read: ReadPassages,
    *,
    files: Sequence[str],
    training: Sequence[str],
    protocol: EvalProtocol,
) -> Splits:
    """Return the passages of the first of `files` that is there, evaluated, with those of the first of `training`
    shown.
    """
    file, training_file = data.need(task, *files), data.find(*training)
    shown = all_shown(in_folder(training_file, training[0]), read(training_file)) if training_file else None
    return splits_of(task, in_folder(file, files[0]), read(file), shown, protocol)


def in_folder(file: Found, end: str) -> str:
    """Return the file's name for a report, after the folder of `end`: as many sets have a val.jsonl."""
    return "".join((*end.rpartition("/")[:2], file.short))


def splits_of(
    task: str, name: str, passages: Sequence[Passage], training: Split | None, protocol: EvalProtocol
) -> Splits:
    """Return the passages, evaluated, with the training split shown.

    Without one, one passage in five is kept for demonstrations; the harness draws from the evaluated examples.
    """
    if training or protocol is HARNESS:
        return Splits(all_asked(name, passages), training, harness_excludes=True)
    of_first = {passage.asked[0].id: passage for passage in passages if passage.asked}
    firsts = [passage.asked[0] for passage in of_first.values()]
    evaluated, kept = ([of_first[example.id] for example in part] for part in kept_apart(task, firsts))
    shown = all_shown("a fifth of it, kept apart", kept)
    return Splits(all_asked(name, evaluated), shown, harness_excludes=True)


def all_asked(name: str, passages: Sequence[Passage]) -> Split:
    """Return what the passages are evaluated by."""
    return Split(name, [example for passage in passages for example in passage.asked])


def all_shown(name: str, passages: Sequence[Passage]) -> Split:
    """Return what shows the passages as demonstrations."""
    return Split(name, [example for passage in passages for example in passage.shown])
