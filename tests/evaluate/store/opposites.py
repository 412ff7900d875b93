"""A small task whose words, demonstrations and name can be changed."""

from __future__ import annotations

from fewshot.evaluate.demonstrations import drawn_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.task import Task

WORDS = {"hot": "cold", "up": "down", "big": "small", "old": "new", "wet": "dry", "far": "near", "low": "high"}

SHOWN = [Example(word, f"{word} ->", (f" {other}", " or"), 0) for word, other in {"in": "out", "on": "off"}.items()]


def opposites(words=WORDS, *, shown=SHOWN, name="opposites", source="words.txt", gold=0, **fields) -> Task:
    asked = [Example(word, f"{word} ->", (f" {other}", " or"), gold) for word, other in words.items()]
    episodes = drawn_episodes(name, asked, shown)
    return Task(**{"name": name, "kind": "choose", "episodes": episodes, "metrics": (accuracy(),), "source": source,
                   **fields})  # fmt: skip
