"""How demonstrations are drawn: from a training split, or from the evaluated set itself. In: examples. Out: episodes.

The paper's draw depends on the example alone, so that more shots and other limits keep the former demonstrations; the
harness's draw depends on the order of the examples. Knows no model and no prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fewshot.base.errors import BadValue, check
from fewshot.base.rng import python_rng, seed_of
from fewshot.evaluate.example import DrawEpisodes, Episode, Example, first_questions, with_equals

DEMONSTRATION_SHARE = 5  # where a set has no training split, one example in five is kept for demonstrations

HARNESS_SEED = 1234  # of lm-eval's demonstrations


def drawn_episodes(
    task: str, evaluated: Sequence[Example], training: Sequence[Example], *, fixed: bool = False
) -> DrawEpisodes:
    """Return episodes whose demonstrations are drawn anew for each evaluated example, never from the evaluated set.

    A draw depends on (task, example id, seed) alone; with `fixed` on (task, seed), so that all examples share one set,
    as the paper does for WSC and MultiRC. Fewer than all examples are the same ones for every seed.
    Source: Brown et al. 2020, sections 2.4 and 3.7.
    """
    questions = {(example.context, example.contexts) for example in evaluated}
    pool = [example for example in training if (example.context, example.contexts) not in questions]
    order = sorted(
        map(with_equals, evaluated), key=lambda example: seed_of("evaluated", task, example.group or example.id)
    )

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


def own_episodes(task: str, examples: Sequence[Example]) -> DrawEpisodes:
    """Return episodes of a set that is its own source of demonstrations (Winograd); no example is shown to itself."""
    drawn = {example.id: drawn_episodes(task, [example], examples) for example in examples}
    order = sorted(examples, key=lambda example: seed_of("evaluated", task, example.id))

    def episodes(n: int, max_shots: int, seed: int) -> list[Episode]:
        check(n >= 1, f"limit is {n}, must be at least 1")
        return [drawn[example.id](1, max_shots, seed)[0] for example in order[:n]]

    return episodes


def harness_episodes(
    task: str, evaluated: Sequence[Example], training: Sequence[Example], *, excluding: bool = False
) -> DrawEpisodes:
    """Return episodes as lm-evaluation-harness makes them: the first n examples, one generator for all their draws.

    So demonstrations depend on which examples came before, and K + 1 of them need not begin like K. `excluding`
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
        check(
            n + excluding <= len(pool),
            f"{task} has {len(pool)} examples for demonstrations, {n + excluding} are needed",
        )
        if not excluding:
            return rng.sample(pool, n)
        drawn = [other for other in rng.sample(pool, n + 1) if other != example][:n]
        return drawn if len(drawn) == n else rng.sample([other for other in pool if other != example], n)

    return episodes


def _check_pool(task: str, shots: int, pool: Sequence[Example]) -> None:
    if shots > 0 and not pool:
        raise BadValue(f"{task} has no examples left for demonstrations: use 0 shots or give a training file")


def kept_apart(task: str, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return (evaluated, demonstrations) of a set without a training split; a hash of each id says which it is."""
    evaluated: list[Example] = []
    demonstrations: list[Example] = []
    for example in examples:
        is_kept = seed_of("kept for demonstrations", task, example.group or example.id) % DEMONSTRATION_SHARE == 0
        (demonstrations if is_kept else evaluated).append(example)
    return evaluated, demonstrations
