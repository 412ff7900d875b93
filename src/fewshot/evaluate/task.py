"""What is asked: examples, episodes and tasks. In: rules or files, read by `tasks/`. Out: values for the runner.

Demonstrations come in two ways that are one thing to the runner, an `Episode`: drawn from a training split for
every evaluated example (`drawn_episodes`), or made by the hidden rule of one prompt (`tasks/novel.py`).
Refuses to know models and tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from fewshot.base.errors import BadValue, check
from fewshot.base.rng import python_rng, seed_of
from fewshot.evaluate.metrics.metric import Metric
from fewshot.evaluate.protocol import GPT3, EvalProtocol

Kind = Literal["choose", "complete", "perplexity", "rolling"]

DEMONSTRATION_SHARE = 5  # where a set has no training split, one example in five is kept for demonstrations
HARNESS_SEED = 1234  # of lm-eval's demonstrations


@dataclass(frozen=True)
class Example:
    """One question with its answers; the completions carry their own leading space.

    `completions` are the choices of a choosing task, the accepted answers of a completing one and the text to be
    scored of a perplexity or rolling one; `gold` is the right one, and the one that a demonstration shows; a choosing
    task may name others in `also_right`. `contexts`, where given, holds one context per completion and stands in place
    of `context` (partial scoring, as in Winograd). `zero_shot` is the same question as it is put without any
    demonstration, where that differs: it is then the whole prompt, without the task's description. `shown` is the
    example as a demonstration, where that is more than context and gold completion. Examples of one `group` are judged
    together. `references` is whatever else the task's measures compare an answer with. `bare` is the question with its
    answer without the words of the prompt's form, where training text could only hold it so (contamination).
    """

    id: str
    context: str
    completions: tuple[str, ...]
    gold: int = 0
    contexts: tuple[str, ...] = ()
    zero_shot: Example | None = None
    also_right: tuple[int, ...] = ()
    shown: str = ""
    group: str = ""
    references: Any = None
    bare: str = ""

    def __post_init__(self) -> None:
        check(bool(self.completions) and all(self.completions), f"example {self.id}: every completion must have text")
        right = (self.gold, *self.also_right)
        check(all(0 <= one < len(self.completions) for one in right), f"example {self.id}: {right} name no completion")
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
        return self.shown or context + completion

    def is_right(self, choice: int) -> bool:
        """Return whether that completion is a right one."""
        return choice == self.gold or choice in self.also_right


@dataclass(frozen=True)
class Episode:
    """One evaluated example and the demonstrations it may be shown: K shots show the first K of them.

    `ideal[K]` is the probability that a learner who knows the family of tasks, and has seen the first K
    demonstrations, answers right; None where nobody knows.
    """

    example: Example
    demonstrations: tuple[Example, ...] = ()
    ideal: tuple[float, ...] | None = None


DrawEpisodes = Callable[[int, int, int], Sequence[Episode]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as a value: what is asked, in which form, and how answers are measured.

    `episodes(n, max_shots, seed)` gives at most n questions (examples of one group are one). More shots keep the former
    demonstrations, so curves over K are paired; another seed draws other demonstrations for the same examples.
    """

    name: str
    kind: Kind
    episodes: DrawEpisodes
    metrics: tuple[Metric, ...]  # the first is the task's main one
    source: str  # where the examples come from, for the report
    protocol: EvalProtocol = GPT3
    paper_name: str = ""  # the row of Table H.1
    description: str = ""  # instruction before the first demonstration
    delimiter: str = "\n"  # between description, demonstrations and question; "" where contexts bring their own
    default_shots: int = 0  # the paper's K
    answer_context: str | None = None  # choose: score the choices after this alone too, as measures may need
    stop: tuple[str, ...] = ("\n",)  # complete: the answer ends before any of these
    max_answer_tokens: int = 32  # complete
    chance: float | None = None  # the main measure of a guess
    dev: DrawEpisodes | None = (
        None  # on which the best K is found, where the paper has a development set beside the test
    )
    notes: tuple[str, ...] = ()  # what differs from the paper or from the harness here, with the reason


def drawn_episodes(
    task: str, evaluated: Sequence[Example], training: Sequence[Example], *, fixed: bool = False
) -> DrawEpisodes:
    """Return episodes whose demonstrations are drawn anew for each evaluated example, never from the evaluated set.

    A draw depends on (task, example id, seed) alone; with `fixed` on (task, seed), so that all examples share one set,
    as the paper does for WSC and MultiRC. Fewer than all examples are the same ones for every seed.
    Source: Brown et al. 2020, sections 2.4 and 3.7.
    """
    asked = {(example.context, example.contexts) for example in evaluated}
    pool = [example for example in training if (example.context, example.contexts) not in asked]
    order = sorted(map(with_equals, evaluated), key=lambda one: seed_of("evaluated", task, one.group or one.id))

    def episodes(n: int, max_shots: int, seed: int) -> list[Episode]:
        check(n >= 1, f"limit is {n}, must be at least 1")
        _check_pool(task, max_shots, pool)
        return [Episode(example, draw(example, max_shots, seed)) for example in first_questions(order, n)]

    def draw(example: Example, n: int, seed: int) -> tuple[Example, ...]:
        rng = python_rng("demonstrations", task, "" if fixed else example.group or example.id, seed)
        drawn: dict[int, None] = {}  # keeps the order of drawing, so that a longer draw begins like a shorter one
        while len(drawn) < min(n, len(pool)):
            drawn[rng.randrange(len(pool))] = None
        return tuple(pool[index] for index in drawn)

    return episodes


def with_equals(example: Example) -> Example:
    """Return the example, every choice that reads like the gold one taken for right: no model can tell them apart."""
    alike = [n for n, pair in enumerate(example.pairs) if pair == example.pairs[example.gold] and n != example.gold]
    return replace(example, also_right=(*example.also_right, *alike)) if alike else example


def first_questions(examples: Sequence[Example], n: int) -> list[Example]:
    """Return the examples of the first n questions; those of one group, which lie together, are one question."""
    kept: list[Example] = []
    for example in examples:
        n -= not (kept and example.group and example.group == kept[-1].group)
        if n < 0:
            break
        kept.append(example)
    return kept


def n_questions(examples: Sequence[Example]) -> int:
    """Return how many questions they are."""
    return len({example.group or f"\0{number}" for number, example in enumerate(examples)})


def own_episodes(task: str, examples: Sequence[Example]) -> DrawEpisodes:
    """Return episodes of a set that is its own source of demonstrations, save the evaluated example itself
    (Winograd).
    """
    drawn = {example.id: drawn_episodes(task, [example], examples) for example in examples}
    order = sorted(examples, key=lambda example: seed_of("evaluated", task, example.id))

    def episodes(n: int, max_shots: int, seed: int) -> list[Episode]:
        check(n >= 1, f"limit is {n}, must be at least 1")
        return [drawn[example.id](1, max_shots, seed)[0] for example in order[:n]]

    return episodes


def harness_episodes(
    task: str, evaluated: Sequence[Example], training: Sequence[Example], *, excluding: bool = False
) -> DrawEpisodes:
    """Return episodes as lm-evaluation-harness makes them: the first n examples, one generator for all draws, in their
    order.

    So demonstrations depend on which examples were asked before, and K + 1 of them need not begin like K. `excluding`
    draws one more and takes the example itself out; the harness does so for tasks that name no test split, whichever
    split demonstrations come from; the others may show an example to itself. `seed` 0 is the harness's own (1234).
    Source: lm_eval 0.4.13, api/task.py (fewshot_context) and api/samplers.py.
    """
    pool = list(training)

    def episodes(n: int, max_shots: int, seed: int) -> list[Episode]:
        check(n >= 1, f"limit is {n}, must be at least 1")
        _check_pool(task, max_shots, pool)
        rng = Random(HARNESS_SEED + seed)
        return [Episode(example, tuple(draw(rng, example, max_shots))) for example in evaluated[:n]]

    def draw(rng: Random, example: Example, n: int) -> list[Example]:
        if n == 0:
            return []
        check(n + excluding <= len(pool), f"{task} has {len(pool)} examples for demonstrations, not {n + excluding}")
        if not excluding:
            return rng.sample(pool, n)
        drawn = [one for one in rng.sample(pool, n + 1) if one != example][:n]
        return drawn if len(drawn) == n else rng.sample([one for one in pool if one != example], n)

    return episodes


def on_items(task: Task, ids: Collection[str]) -> Task:
    """Return the task on these examples alone, with the demonstrations that they have when all are asked."""

    def episodes(n: int, max_shots: int, seed: int) -> list[Episode]:
        everything = task.episodes(sys.maxsize, max_shots, seed)
        return [episode for episode in everything if episode.example.id in ids][:n]

    return replace(task, episodes=episodes)


def _check_pool(task: str, shots: int, pool: Sequence[Example]) -> None:
    if shots > 0 and not pool:
        raise BadValue(f"{task} has no examples left for demonstrations: use 0 shots or give a training file")


def kept_apart(task: str, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return (evaluated, demonstrations) of a set without a training split: by a hash of each id, the same every
    time.
    """
    evaluated: list[Example] = []
    demonstrations: list[Example] = []
    for example in examples:
        shown = seed_of("kept for demonstrations", task, example.group or example.id) % DEMONSTRATION_SHARE == 0
        (demonstrations if shown else evaluated).append(example)
    return evaluated, demonstrations
