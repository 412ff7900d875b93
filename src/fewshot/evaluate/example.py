"""A question with its answers, and the demonstrations that may stand before it. Knows no task and no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewshot.base.errors import check


@dataclass(frozen=True)
class Example:
    """One question with its answers; the completions carry their own leading space.

    `completions` are the choices of a choosing task, the accepted answers of a completing one and the text to be
    scored of a perplexity or rolling one; `gold` is the right one, and the one that a demonstration shows; a choosing
    task may name others in `also_right`. `contexts`, where given, holds one context per completion and stands in place
    of `context` (partial scoring, as in Winograd). `zero_shot` is the same question as it is put without any
    demonstration, where that differs: it is then the whole prompt, without the task's description. `as_demonstration`
    is its text in a demonstration, where that is more than context and gold completion. Examples of one `group` are
    judged together. `references` is whatever else the task's metrics compare an answer with. `bare` is the question
    with its answer without the words of the prompt's form, where training text could only hold it so (contamination).
    """

    id: str
    context: str
    completions: tuple[str, ...]
    gold: int = 0
    contexts: tuple[str, ...] = ()
    zero_shot: Example | None = None
    also_right: tuple[int, ...] = ()
    as_demonstration: str = ""
    group: str = ""
    references: Any = None
    bare: str = ""

    def __post_init__(self) -> None:
        check(bool(self.completions) and all(self.completions), f"example {self.id}: every completion must have text")
        right = (self.gold, *self.also_right)
        check(
            all(0 <= index < len(self.completions) for index in right), f"example {self.id}: {right} name no completion"
        )
        check(len(self.contexts) in (0, len(self.completions)), f"example {self.id}: one context per completion")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(context, completion) for every completion."""
        contexts = self.contexts or (self.context,) * len(self.completions)
        return tuple(zip(contexts, self.completions, strict=True))

    @property
    def demonstration(self) -> str:
        """The question with its right answer, as a prompt shows it."""
        context, completion = self.pairs[self.gold]
        return self.as_demonstration or context + completion

    def is_right(self, choice: int) -> bool:
        """Return whether that completion is a right one."""
        return choice == self.gold or choice in self.also_right


@dataclass(frozen=True)
class Episode:
    """One evaluated example and the demonstrations that may stand before it: K shots take the first K of them.

    `ideal[K]` is the probability that a learner who knows the family of tasks, and has seen the first K
    demonstrations, answers right; None where nobody knows.
    """

    example: Example
    demonstrations: tuple[Example, ...] = ()
    ideal: tuple[float, ...] | None = None


DrawEpisodes = Callable[[int, int, int], Sequence[Episode]]  # (n questions, most shots, seed) -> episodes


def with_equals(example: Example) -> Example:
    """Return the example with every choice that reads like the gold one as right too: no model can tell them apart."""
    alike = [n for n, pair in enumerate(example.pairs) if pair == example.pairs[example.gold] and n != example.gold]
    return replace(example, also_right=(*example.also_right, *alike)) if alike else example


def first_questions(examples: Sequence[Example], n: int) -> list[Example]:
    """Return the examples of the first n questions; those of one group, which lie together, are one question."""
    first: list[Example] = []
    for example in examples:
        n -= not (first and example.group and example.group == first[-1].group)
        if n < 0:
            break
        first.append(example)
    return first


def n_questions(examples: Sequence[Example]) -> int:
    """Return how many questions the examples are; those of one group are one question."""
    return len({example.group or f"\0{number}" for number, example in enumerate(examples)})
