"""Schemas of rows in files of examples: which values a row must hold. Knows no task and no file.

`str`, `int` or `bool` is a value of that type; `object` anything; `(str, int)` either; `[schema]` a list of one or
more; `{"name": schema}` an object with at least these fields. The classes below say what these cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fewshot.base.errors import BadValue
from fewshot.base.text import without_surrogates

Schema = Any
ID = (int, str)  # of a question; files that were written anew often number theirs

WORDS = {str: ("text", "texts"), int: ("a whole number", "whole numbers"), bool: ("true or false", "true or false")}


@dataclass(frozen=True)
class Many:
    """A list that may be empty."""

    part: Schema


@dataclass(frozen=True)
class Each:
    """An object whose values all fit one schema, whatever their names."""

    part: Schema


@dataclass(frozen=True)
class Maybe:
    """A field that may be absent or null."""

    part: Schema


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]


def check_schema(value: Any, schema: Schema, name: str = "") -> None:
    """Raise `BadValue` that names the first part of `value` that does not fit `schema`."""
    if isinstance(schema, Maybe):
        if value is not None:
            check_schema(value, schema.part, name)
        return
    if not _fits(value, schema):
        text = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}..."
        raise BadValue(f"{name or 'it'} is {text}, must be {_in_words(schema)}")
    for part, part_schema, part_name in _parts(value, schema, name):
        check_schema(part, part_schema, part_name.removeprefix("."))


def _fits(value: Any, schema: Schema) -> bool:
    """Return whether the value fits the schema, its parts aside."""
    if isinstance(schema, OneOf):
        return value in schema.values
    if isinstance(schema, tuple):
        return any(_fits(value, alternative) for alternative in schema)
    if isinstance(schema, (list, Many)):
        return isinstance(value, list) and (bool(value) or isinstance(schema, Many))
    if isinstance(schema, (dict, Each)):
        return isinstance(value, dict)
    return isinstance(value, schema) and (schema is object or isinstance(value, bool) == (schema is bool))


def _parts(value: Any, schema: Schema, name: str) -> Iterator[tuple[Any, Schema, str]]:
    """Yield the parts of a value, each with its schema and its name; raise `BadValue` for a missing field."""
    if isinstance(schema, (list, Many)):
        inside = schema[0] if isinstance(schema, list) else schema.part
        yield from ((item, inside, f"{name}[{number}]") for number, item in enumerate(value))
    elif isinstance(schema, Each):
        yield from ((item, schema.part, f"{name}.{key}") for key, item in value.items())
    elif isinstance(schema, dict):
        for key, part_schema in schema.items():
            if key not in value and not isinstance(part_schema, Maybe):
                raise BadValue(f"{name or 'it'} lacks {key!r}, {_in_words(part_schema)}")
            yield value.get(key), part_schema, f"{name}.{key}"


def _in_words(schema: Schema) -> str:
    """Return what a value of the schema is, in words."""
    if isinstance(schema, Maybe):
        return _in_words(schema.part)
    if isinstance(schema, OneOf):
        return f"one of {_several(schema)}"
    if isinstance(schema, tuple):
        return " or ".join(map(_in_words, schema))
    if isinstance(schema, Many):
        return f"a list of {_several(schema.part)}"
    if isinstance(schema, list):
        return f"a list of {_several(schema[0])} that is not empty"
    return "an object" if isinstance(schema, (dict, Each)) else WORDS.get(schema, ("a value",))[0]


def _several(schema: Schema) -> str:
    """Return what several values of the schema are, in words."""
    if isinstance(schema, OneOf):
        return ", ".join(map(repr, schema.values))
    if isinstance(schema, tuple):
        return " or ".join(map(_several, schema))
    if isinstance(schema, (list, Many)):
        return "lists"
    return "objects" if isinstance(schema, (dict, Each)) else WORDS.get(schema, ("", "values"))[1]


def without_lone_surrogates(value: Any) -> Any:
    """Return the value with U+FFFD for lone surrogates, which JSON can spell and no encoding can hold, in all texts."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [without_lone_surrogates(item) for item in value]
    return {key: without_lone_surrogates(item) for key, item in value.items()} if isinstance(value, dict) else value
