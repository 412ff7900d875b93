"""Values that a field may not have: an error that names the field is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import openai
from contract_rows.side import Miss, Rows, Side, named

ROWS = Rows()
VALUES: list[tuple[str, str, list[Any]]] = [
    ("max_tokens", "a whole number of at least 0", [-1, 1.5, "3"]),
    ("temperature", "a number from 0 to 2", [-0.1, 2.1, "1"]),
    ("top_p", "a number from 0 to 1", [-0.1, 1.1]),
    ("n", "a whole number from 1 to 128", [0, 129, 1.5]),
    ("best_of", "a whole number of at least 1", [0]),
    ("stream", "true or false", ["yes"]),
    ("logprobs", "a whole number of at least 0", [-1, True]),
    ("echo", "true or false", ["yes"]),
    ("stop", "a text, or 1 to 4 texts", [3, []]),
    ("presence_penalty", "a number from -2 to 2", [-2.1, 2.1]),
    ("frequency_penalty", "a number from -2 to 2", [-2.1, 2.1]),
    ("logit_bias", "token ids and numbers from -100 to 100", [{"5": 101}, {"5": -101}, {"word": 1}, {"60000": 1}]),
    ("seed", "a whole number", [1.5]),
    ("user", "a text", [3]),
    ("prompt", "texts, tokens of the vocabulary, or lists of them", [[], [[]], [60000], [-1], [[5], [60000]], 3]),
    ("unknown_field", "no such field", [1]),
]
NAMES = {"prompt": "prompt|tokens?"}  # other words by which an error may name a field
TOGETHER: list[tuple[str, str, str, dict[str, Any]]] = [
    ("best_of", "1, n 2", "not below n", {"best_of": 1, "n": 2}),
    ("best_of", "2, in a stream", "results cannot be streamed", {"best_of": 2, "stream": True}),
    ("stream_options", "without stream", "only with a stream", {"stream_options": {"include_usage": True}}),
]


def refused(field: str, fields: dict[str, Any], side: Side) -> None:
    try:
        side.ask(**{"max_tokens": 2, **fields})
    except openai.APIStatusError as error:
        named(error, field)
        return
    raise Miss("ignored", "an answer")


for field, allowed, values in VALUES:
    for value in values:
        ROWS.row(field, json.dumps(value), f"an error: {allowed}")(
            partial(refused, NAMES.get(field, field), {field: value})
        )
for field, value, allowed, fields in TOGETHER:
    ROWS.row(field, value, f"an error: {allowed}")(partial(refused, field, fields))


def too_long(fields_of: Callable[[int], dict[str, Any]], side: Side) -> None:
    refused("prompt|max_tokens|context", fields_of(side.truth.n_ctx), side)


for field, value, fields_of in (
    ("prompt", "longer than the context", lambda n_ctx: {"prompt": [5] * (n_ctx + 10)}),
    ("max_tokens", "more than the context has room for", lambda n_ctx: {"max_tokens": n_ctx}),
):
    ROWS.row(field, value, "an error: both together must not exceed the context")(partial(too_long, fields_of))
