"""What is asked: examples, episodes and tasks. In: rules or files, read by `tasks/`. Out: values for the runner.

Demonstrations come in two ways that are one thing to the runner, an `Episode`: drawn from a training split for
every evaluated example (`drawn_episodes`), or made by the hidden rule of one prompt (`tasks/novel.py`).
Refuses to know models and tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fewshot.base.errors import BadValue, check
from fewshot.base.rng import python_rng, seed_of
from fewshot.evaluate.metrics import exact_match

Kind = Literal["choose", "complete", "perplexity"]
Normalisation = Literal["sum", "token", "unconditional"]

DEMONSTRATION_SHARE = 5  # where a set has no training split, one example in five is kept for demonstrations


@dataclass(frozen=True)
class Example:
    """One question with its answers; the completions carry their own leading space.

    `completions` are the choices of a choosing task, the accepted answers of a completing one and the text to be
    scored of a perplexity one; `gold` is the right one, and the one that a demonstration shows. `contexts`, where
    given, holds one context per completion and stands in place of `context` (partial scoring, as in Winograd).
    `zero_shot` is the same question as it is put without any demonstration, where that differs: it is then the whole
    prompt, without the task's description.
    """

    id: str
    context: str
    completions: tuple[str, ...]
    gold: int = 0
    contexts: tuple[str, ...] = ()
    zero_shot: Example | None = None

    def __post_init__(self) -> None:
        check(bool(self.completions) and all(self.completions), f"example {self.id}: every completion must have text")
        check(0 <= self.gold < len(self.completions), f"example {self.id}: gold {self.gold} names no completion")
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
        return context + completion


@dataclass(frozen=True)
class Episode:
    """One evaluated example and the demonstrations it may be shown: K shots show the first K of them.

    `ideal[K]` is the probability that a learner who knows the family of tasks, and has seen the first K
    demonstrations, answers right; None where nobody knows.
    """

    example: Example
    demonstrations: tuple[Example, ...] = ()
    ideal: tuple[float, ...] | None = None


Episodes = Callable[[int, int, int], Sequence[Episode]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as a value: what is asked, in which form, and how an answer is judged.

    `episodes(n, max_shots, seed)` gives at most n episodes. More shots keep the former demonstrations, so curves over
    K are paired; another seed draws other demonstrations for the same examples.
    """

    name: str
    kind: Kind
    episodes: Episodes
    source: str  # where the examples come from, for the report
    paper_name: str = ""  # the row of Table H.1
    description: str = ""  # instruction before the first demonstration
    delimiter: str = "\n"  # between description, demonstrations and question; "" where contexts bring their own
    default_shots: int = 0  # the paper's K
    normalisation: Normalisation = "token"  # choose: how log-probabilities of choices are made comparable
    answer_context: str = "Answer:"  # unconditional: the context without the question
    stop: tuple[str, ...] = ("\n",)  # complete: the answer ends before any of these
    max_answer_tokens: int = 32  # complete
    metric: str = "accuracy"  # complete: the name of what `judge` measures
    judge: Callable[[str, Sequence[str]], float] = exact_match  # complete: answer, accepted answers -> value
    chance: float | None = None  # accuracy of a guess


def drawn_episodes(task: str, evaluated: Sequence[Example], training: Sequence[Example]) -> Episodes:
    """Episodes whose demonstrations are drawn anew for each evaluated example, never from the evaluated set.

    A draw depends on (task, example id, seed) alone. Fewer than all examples are the same ones for every seed.
    Source: Brown et al. 2020, section 2.4.
    """
    asked = {example.context for example in evaluated}
    pool = [example for example in training if example.context not in asked]
    order = sorted(evaluated, key=lambda example: seed_of("evaluated", task, example.id))

    def episodes(n: int, max_shots: int, seed: int) -> list[Episode]:
        check(n >= 1, f"limit is {n}, must be at least 1")
        if max_shots > 0 and not pool:
            raise BadValue(f"{task} has no examples left for demonstrations: use 0 shots or give a training file")
        return [Episode(example, draw(example, max_shots, seed)) for example in order[:n]]

    def draw(example: Example, n: int, seed: int) -> tuple[Example, ...]:
        rng = python_rng("demonstrations", task, example.id, seed)
        drawn: dict[int, None] = {}  # keeps the order of drawing, so that a longer draw begins like a shorter one
        while len(drawn) < min(n, len(pool)):
            drawn[rng.randrange(len(pool))] = None
        return tuple(pool[index] for index in drawn)

    return episodes


def kept_apart(task: str, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """(evaluated, demonstrations) of a set without a training split: by a hash of each id, the same every time."""
    evaluated: list[Example] = []
    demonstrations: list[Example] = []
    for example in examples:
        shown = seed_of("kept for demonstrations", task, example.id) % DEMONSTRATION_SHARE == 0
        (demonstrations if shown else evaluated).append(example)
    return evaluated, demonstrations
