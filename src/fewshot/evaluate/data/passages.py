"""Passages with several questions each. In: a file's passages. Out: their questions and demonstrations, in splits.

Every question of an evaluated passage is an example; as a demonstration a passage stands once, with all its questions
answered. Without a training file one passage in five is kept for demonstrations, so that no evaluated passage is one.
Knows no task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fewshot.evaluate.data.files import Data, DataFile
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.demonstrations import kept_apart
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import HARNESS, EvalProtocol


class Passage(Protocol):
    """Examples that belong together; they are made only when they are needed, as training files are large."""

    @property
    def questions(self) -> Sequence[Example]:
        """The examples that it is evaluated by."""

    @property
    def demonstrations(self) -> Sequence[Example]:
        """The examples by which it is a demonstration."""


@dataclass(frozen=True)
class Separate:
    """A passage whose questions stand alone, without each other."""

    examples: tuple[Example, ...]

    @property
    def questions(self) -> tuple[Example, ...]:
        """Each question."""
        return self.examples

    @property
    def demonstrations(self) -> tuple[Example, ...]:
        """Each question."""
        return self.examples


@dataclass(frozen=True)
class Turn:
    """One question about a passage; its first answer is the one in later turns and in demonstrations."""

    id: str
    question: str
    answers: tuple[str, ...]
    references: Any = None  # what metrics compare an answer with


@dataclass(frozen=True)
class Dialogue:
    """A passage and its turns, `Q: ...` and `A: ...` between blank lines, each after those before it with answers.

    Source: Brown et al. 2020, appendix G (CoQA, QuAC, SQuADv2).
    """

    passage: str
    turns: tuple[Turn, ...]

    @property
    def questions(self) -> list[Example]:
        """Every turn."""
        examples, text = [], self.passage
        for turn in self.turns:
            text += f"\n\nQ: {turn.question}\n\nA:"
            answers = tuple(f" {answer}" for answer in turn.answers)
            examples.append(Example(turn.id, text, answers, references=turn.references))
            text += answers[0]
        return examples

    @property
    def demonstrations(self) -> list[Example]:
        """The last turn, with all others before it."""
        return self.questions[-1:]


ReadPassages = Callable[[DataFile], Sequence[Passage]]


def passage_splits(
    task: str,
    data: Data,
    read: ReadPassages,
    *,
    files: Sequence[str],
    training: Sequence[str],
    protocol: EvalProtocol,
) -> Splits:
    """Return the passages of the first of `files` that is there, with demonstrations from the first of `training`."""
    file, training_file = data.require(task, *files), data.find(*training)
    demonstrations = None
    if training_file:
        demonstrations = demonstration_split(in_folder(training_file, training[0]), read(training_file))
    return splits_of(task, in_folder(file, files[0]), read(file), demonstrations, protocol)


def in_folder(file: DataFile, end: str) -> str:
    """Return the file's name for a report, behind the folder of `end`, as many sets have a val.jsonl."""
    return "".join((*end.rpartition("/")[:2], file.short))


def splits_of(
    task: str, name: str, passages: Sequence[Passage], training: Split | None, protocol: EvalProtocol
) -> Splits:
    """Return splits that evaluate the passages, with demonstrations from the training split.

    Without one, one passage in five is kept for demonstrations; the harness draws from the evaluated examples.
    """
    if training or protocol is HARNESS:
        return Splits(question_split(name, passages), training, harness_excludes=True)
    of_first = {passage.questions[0].id: passage for passage in passages if passage.questions}
    firsts = [passage.questions[0] for passage in of_first.values()]
    evaluated, rest = ([of_first[example.id] for example in part] for part in kept_apart(task, firsts))
    demonstrations = demonstration_split("a fifth of it, kept apart", rest)
    return Splits(question_split(name, evaluated), demonstrations, harness_excludes=True)


def question_split(name: str, passages: Sequence[Passage]) -> Split:
    """Return the questions of all passages as a split."""
    return Split(name, [example for passage in passages for example in passage.questions])


def demonstration_split(name: str, passages: Sequence[Passage]) -> Split:
    """Return the demonstrations of all passages as a split."""
    return Split(name, [example for passage in passages for example in passage.demonstrations])
