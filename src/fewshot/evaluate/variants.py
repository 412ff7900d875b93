"""Prompts changed on purpose, to see what a model takes from them. In: a task and a variant's name. Out: a task.

A variant changes the demonstrations of an episode, by (episode's id, seed) alone. The varied task has a name of its
own, so that its scores are stored and shown beside the plain ones. Knows no task and no model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from fewshot.base.errors import check, look_up
from fewshot.base.rng import python_rng
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.protocol import GPT3
from fewshot.evaluate.task import Task

SPARE = 8  # demonstrations drawn beyond K: their answers are wrong ones for those that are shown


@dataclass(frozen=True)
class _Drawn:
    """What a variant changes: a prompt of K demonstrations and some more, of a task with choices or without."""

    example: Example
    demonstrations: tuple[Example, ...]
    choosing: bool

    def others(self) -> list[Example]:
        """Return the demonstrations but the question's own line."""
        own = (self.example.context, self.example.contexts)
        return [example for example in self.demonstrations if (example.context, example.contexts) != own]

    def wrong(self, example: Example, neighbours: Sequence[Example], rng: Random) -> Example:
        """Return the example with another answer: one of its wrong choices, else one of its neighbours' answers.

        It stays as it is where all of them have its own answer.
        """
        if self.choosing:
            choices = [index for index in range(len(example.completions)) if not example.is_right(index)]
            return replace(example, gold=rng.choice(choices), also_right=()) if choices else example
        answers = [answer for answer in map(_answer, neighbours) if answer not in example.completions]
        return _answered(example, rng.choice(answers)) if answers else example


Change = Callable[[_Drawn, int, Random], tuple[Example, Sequence[Example]]]  # (drawn, K, rng) -> (question, K shown)


def varied(task: Task, variant: str) -> Task:
    """Return the task with its prompts changed by a variant, such as "wrong_labels=0.5"; share 0 is the task itself.

    Every question is kept, and its right answer too, save that of a fresh mapping. At K = 0 there is nothing to change.
    Raises BadValue where the variant needs more demonstrations than K, or a task of another form.
    """
    name, _, value = variant.partition("=")
    change, least, value = look_up("variant", name, VARIANTS)(value)
    variant = f"{name}={value}" if value else name
    if variant == "wrong_labels=0":
        return task
    check(
        task.protocol is GPT3 and task.kind != "rolling",
        f"{task.name} has no variants under {task.protocol.name}: its demonstrations must be drawn for each question, "
        "as in tasks with demonstrations under --protocol gpt3",
    )
    check(
        name != "fresh_mapping" or task.kind == "complete",
        f"{task.name} is of the kind {task.kind}, fresh_mapping needs the kind complete, such as hidden_letter",
    )

    def episodes(n: int, max_shots: int, seed: int) -> Sequence[Episode]:
        if max_shots == 0:
            return task.episodes(n, 0, seed)
        check(max_shots >= least, f"{variant} needs {least} or more demonstrations, K is {max_shots}: use more --shots")
        return [vary(episode, max_shots, seed) for episode in task.episodes(n, max_shots + SPARE, seed)]

    def vary(episode: Episode, shots: int, seed: int) -> Episode:
        check(
            not any(example.as_demonstration for example in episode.demonstrations),
            f"{task.name} has no variants: its demonstrations show more than a question and its answer",
        )
        # the same draws for every value of a variant, so that its values are compared in pairs
        rng = python_rng("variant", name, episode.example.id, seed)
        drawn = _Drawn(episode.example, episode.demonstrations, task.kind == "choose")
        example, shown = change(drawn, shots, rng)
        return Episode(example, tuple(shown))  # the ideal learner's chances were for the plain prompt

    return replace(task, name=f"{task.name}+{variant}", variant=variant, episodes=episodes, paper_name="", chance=None)


def _wrong_labels(value: str) -> tuple[Change, int, str]:
    """Give each demonstration a wrong answer with that probability. Source: Min et al. 2022."""
    try:
        share = float(value or 1)
    except ValueError:
        share = -1.0
    check(0 <= share <= 1, f"wrong_labels is {value!r}, must be a share from 0 to 1, such as wrong_labels=0.5")

    def change(drawn: _Drawn, shots: int, rng: Random) -> tuple[Example, Sequence[Example]]:
        shown = []
        around = drawn.demonstrations * 2
        for place, example in enumerate(drawn.demonstrations[:shots]):
            chance, wrong = rng.random(), drawn.wrong(example, around[place + 1 : place + 1 + SPARE], rng)
            shown.append(wrong if chance < share else example)
        return drawn.example, shown

    return change, 1, f"{share:g}"


def _contradiction(value: str) -> tuple[Change, int, str]:
    """Show the question's own line twice, at random places: the `value` one right, the other wrong."""
    right = value or "later"
    check(
        right in ("later", "earlier"), f"contradiction is {value!r}, must be later or earlier: the right answer's line"
    )

    def change(drawn: _Drawn, shots: int, rng: Random) -> tuple[Example, Sequence[Example]]:
        first, second = sorted(rng.sample(range(shots), 2))
        lines = [drawn.wrong(drawn.example, drawn.demonstrations, rng), drawn.example]
        shown = drawn.others()[: shots - 2]
        for place, line in zip((first, second), lines if right == "later" else lines[::-1], strict=True):
            shown.insert(place, line)
        return drawn.example, shown

    return change, 2, right


def _place(value: str) -> tuple[Change, int, str]:
    """Show the question's own line, with its right answer, at that place; 1 is the first. Source: Zhao et al. 2021."""
    check(
        value in ("first", "last") or (value.isdecimal() and int(value) >= 1),
        f"place is {value!r}, must be first, last or a number from 1, such as place=last",
    )
    at = int(value) if value.isdecimal() else 1

    def change(drawn: _Drawn, shots: int, rng: Random) -> tuple[Example, Sequence[Example]]:
        shown = drawn.others()[: shots - 1]
        shown.insert(shots - 1 if value == "last" else at - 1, drawn.example)
        return drawn.example, shown

    return change, at, str(at) if value.isdecimal() else value


def _fresh_mapping(value: str) -> tuple[Change, int, str]:
    """Give the lines each other's answers, so that no rule holds; the question's own line is one of those shown.

    The right answer is now the one that the prompt shows, never the former one. Source: Wei et al. 2023.
    """
    check(not value, f"fresh_mapping is {value!r}, it takes no value")

    def change(drawn: _Drawn, shots: int, rng: Random) -> tuple[Example, Sequence[Example]]:
        check(
            drawn.example.references is None,
            f"{drawn.example.id}: fresh_mapping needs a task that compares with the answer alone",
        )
        lines = [drawn.example, *drawn.others()]
        answers = list(dict.fromkeys(map(_answer, lines)))
        rng.shuffle(answers)
        answers.sort(key=lambda answer: answer in drawn.example.completions)  # the question's former one is the last
        check(
            answers[0] not in drawn.example.completions,
            f"{drawn.example.id}: all demonstrations have the question's answer, fresh_mapping needs different ones",
        )
        fresh = [_answered(line, answer) for line, answer in zip(lines, itertools.cycle(answers), strict=False)]
        return fresh[0], rng.sample(fresh[:shots], min(shots, len(fresh)))

    return change, 1, ""


VARIANTS: dict[str, Callable[[str], tuple[Change, int, str]]] = {
    "wrong_labels": _wrong_labels,
    "contradiction": _contradiction,
    "place": _place,
    "fresh_mapping": _fresh_mapping,
}


def _answer(example: Example) -> str:
    return example.completions[example.gold]


def _answered(example: Example, answer: str) -> Example:
    return replace(example, completions=(answer,), gold=0, also_right=())
