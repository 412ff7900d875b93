"""A task as a value: its questions, the form of its prompts, its metrics. In: what `tasks/` reads. Out: for `run.py`.

Its episodes are drawn from a training split for every evaluated example (`demonstrations.py`), or made by the hidden
rule of one prompt (`tasks/novel.py`). Knows no models and no tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from fewshot.evaluate.example import DrawEpisodes, Episode
from fewshot.evaluate.metrics.metric import Metric
from fewshot.evaluate.protocol import GPT3, EvalProtocol

TaskKind = Literal["choose", "complete", "perplexity", "rolling"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: its questions, the form of its prompts, and the metrics of its answers.

    `episodes(n, max_shots, seed)` gives at most n questions (examples of one group are one). More shots keep the former
    demonstrations, so curves over K are paired; another seed draws other demonstrations for the same examples.
    """

    name: str
    kind: TaskKind
    episodes: DrawEpisodes
    metrics: tuple[Metric, ...]  # the first is the task's main one
    source: str  # where the examples come from, for the report
    protocol: EvalProtocol = GPT3
    paper_name: str = ""  # the row of Table H.1
    variant: str = ""  # how its prompts were changed (`variants.py`); the name says it too
    description: str = ""  # instruction before the first demonstration
    delimiter: str = "\n"  # between description, demonstrations and question; "" where contexts bring their own
    default_shots: int = 0  # the paper's K
    answer_context: str | None = None  # choose: score the choices after this alone too, as metrics may need
    stop: tuple[str, ...] = ("\n",)  # complete: the answer ends before any of these
    max_answer_tokens: int = 32  # complete
    chance: float | None = None  # the main metric of a guess
    synthetic: bool = False  # the questions are made by a rule, so that short n-grams of them tell contamination
    dev: DrawEpisodes | None = None  # on which the best K is chosen, where the paper has a development set
    notes: tuple[str, ...] = ()  # what differs from the paper or from the harness here, with the reason


def on_items(task: Task, ids: Collection[str]) -> Task:
    """Return the task on these examples alone, with the demonstrations that they have in the whole set."""

    def episodes(n: int, max_shots: int, seed: int) -> list[Episode]:
        everything = task.episodes(sys.maxsize, max_shots, seed)
        return [episode for episode in everything if episode.example.id in ids][:n]

    return replace(task, episodes=episodes)


def paired_with(task: Task, first: Task, *, limit: int) -> Task:
    """Return the task as it is compared with the same task under the first protocol: on its questions, with its K."""
    ids = {episode.example.id for episode in first.episodes(limit, 0, 0)}
    return replace(on_items(task, ids), default_shots=first.default_shots)
