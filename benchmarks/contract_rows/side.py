"""A server under test, and the rows that are asked of it.

A row is a value of a field and what OpenAI's description of the field asks for. A description that says what a value
may be asks for an error (400) for every other value, which names the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import openai
from contract_rows.truth import REPLACED, Truth

PROMPTS = ("The old house by the river", "In the morning")
N_TOKENS = 12


class Miss(Exception):
    """What came is not what is asked for."""

    def __init__(self, verdict: str, said: str) -> None:
        super().__init__(said)
        self.verdict = verdict


class Side:
    """A server, and the model that it serves."""

    def __init__(self, url: str, truth: Truth) -> None:
        self.client, self.truth = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60), truth
        self.model = self.client.models.list().data[0].id
        self.ids = [truth.encode(prompt) for prompt in PROMPTS]

    def ask(self, prompt: Any = PROMPTS[0], *, model: str = "", **fields: Any) -> Any:
        """Return the answer, or the chunks of a stream."""
        how = {"stream": fields.pop("stream")} if fields.get("stream") is True else {}
        create = self.client.completions.create
        answer = create(model=model or self.model, prompt=prompt, extra_body=fields or None, **how)
        if not how:
            return answer
        chunks = list(answer)
        if not all(chunk is not None and isinstance(chunk.choices, list) for chunk in chunks):
            raise Miss("wrong", "a chunk without choices")
        return chunks

    def choices(self, n: int = 1, /, **fields: Any) -> list[Any]:
        """Return the choices of an answer; their number and order are checked."""
        choices = self.ask(**fields).choices
        if choices is None or [choice.index for choice in choices] != list(range(n)):
            raise Miss("wrong", f"choices {[choice.index for choice in choices or []]}, not {n}")
        return choices

    def greedy(self, n: int = N_TOKENS, /, **fields: Any) -> Any:
        """Return the one choice of a greedy answer."""
        return self.choices(temperature=0, max_tokens=n, **fields)[0]

    def draw(self, **fields: Any) -> str:
        return self.choices(max_tokens=N_TOKENS, **fields)[0].text

    @cached_property
    def written(self) -> list[list[int]]:
        """Return the greedy tokens behind each prompt."""
        return [self.truth.greedy(ids, N_TOKENS) for ids in self.ids]

    @cached_property
    def texts(self) -> list[str]:
        return [self.expected(ids) for ids in self.ids]

    def expected(self, prompt: Sequence[int], **how: Any) -> str:
        """Return the greedy text behind a prompt; servers write a half character differently, so it has none."""
        text = self.truth.decode(self.truth.greedy(prompt, N_TOKENS, **how))
        assert REPLACED not in text, "give a model with another seed"
        return text

    def stops(self, *, across: bool) -> list[str]:
        """Return pieces of the greedy text in their order, each a token's text or two characters across two tokens."""
        text, offset, stops = self.texts[0], 0, []
        for token in self.written[0]:
            word = self.truth.decode([token])
            stop, at = (text[offset - 1 : offset + 1], offset - 1) if across else (word, offset)
            if offset > 5 and text.find(stop) == at:
                stops.append(stop)
            offset += len(word)
        assert len(stops) >= 2, "give a model with another seed"
        return stops


Check = Callable[[Side], None]


@dataclass(frozen=True)
class Row:
    field: str
    value: str
    asks: str
    check: Check


class Rows(list[Row]):
    """Rows of one kind."""

    def row(self, field: str, value: str, asks: str) -> Callable[[Check], Check]:
        """Add the check that follows as a row."""

        def add(check: Check) -> Check:
            self.append(Row(field, value, asks, check))
            return check

        return add


def same(actual: Any, expected: Any, without: Any = None) -> None:
    """Raise Miss where what came is something else; as it was `without` the field, the field is ignored."""
    if actual != expected:
        ignored = without is not None and actual == without
        raise Miss("ignored" if ignored else "wrong", f"{str(actual)[:70]!r}, not {str(expected)[:70]!r}")


def named(error: openai.APIStatusError, field: str) -> None:
    """Check that an error is a 400 that names the field, a regular expression."""
    body = error.body if isinstance(error.body, dict) else {}
    said = f"{body.get('param')} {body.get('message')}"
    if error.status_code != 400 or not re.search(rf"\b({field})\b", said, re.IGNORECASE):
        raise Miss("wrong", f"{error.status_code}: {body.get('message') or error.message}")
