"""Kinds of values in files of examples, as values themselves: what a row must hold. Knows no task and no file.

`str`, `int` or `bool` is a value of that type; `object` anything; `(str, int)` either; `[kind]` a list of one or more;
`{"name": kind}` an object with at least these fields. The classes below say what these cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fewshot.base.errors import BadValue
from fewshot.base.text import without_surrogates

Kind = Any
ID = (int, str)  # of a question; files that were written anew often number theirs

WORDS = {str: ("text", "texts"), int: ("a whole number", "whole numbers"), bool: ("true or false", "true or false")}


@dataclass(frozen=True)
class Many:
    """A list that may be empty."""

    kind: Kind


@dataclass(frozen=True)
class Each:
    """An object whose values are all of one kind, whatever they are called."""

    kind: Kind


@dataclass(frozen=True)
class Maybe:
    """A field that may be absent or null."""

    kind: Kind


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]


def check_kind(value: Any, kind: Kind, name: str = "") -> None:
    """Raise `BadValue` that names the first value in `value` that is of another kind than `kind` says."""
    if isinstance(kind, Maybe):
        if value is not None:
            check_kind(value, kind.kind, name)
        return
    if not _fits(value, kind):
        shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}..."
        raise BadValue(f"{name or 'it'} is {shown}, must be {_said(kind)}")
    for part, its_kind, its_name in _parts(value, kind, name):
        check_kind(part, its_kind, its_name.removeprefix("."))


def _fits(value: Any, kind: Kind) -> bool:
    """Return whether it is of that kind, its parts aside."""
    if isinstance(kind, OneOf):
        return value in kind.values
    if isinstance(kind, tuple):
        return any(_fits(value, one) for one in kind)
    if isinstance(kind, (list, Many)):
        return isinstance(value, list) and (bool(value) or isinstance(kind, Many))
    if isinstance(kind, (dict, Each)):
        return isinstance(value, dict)
    return isinstance(value, kind) and (kind is object or isinstance(value, bool) == (kind is bool))


def _parts(value: Any, kind: Kind, name: str) -> Iterator[tuple[Any, Kind, str]]:
    """Yield what stands inside, each with its kind and its name; a field that is missing raises `BadValue`."""
    if isinstance(kind, (list, Many)):
        inside = kind[0] if isinstance(kind, list) else kind.kind
        yield from ((item, inside, f"{name}[{number}]") for number, item in enumerate(value))
    elif isinstance(kind, Each):
        yield from ((item, kind.kind, f"{name}.{key}") for key, item in value.items())
    elif isinstance(kind, dict):
        for key, its_kind in kind.items():
            if key not in value and not isinstance(its_kind, Maybe):
                raise BadValue(f"{name or 'it'} lacks {key!r}, {_said(its_kind)}")
            yield value.get(key), its_kind, f"{name}.{key}"


def _said(kind: Kind) -> str:
    """Return the kind in words."""
    if isinstance(kind, Maybe):
        return _said(kind.kind)
    if isinstance(kind, OneOf):
        return f"one of {_several(kind)}"
    if isinstance(kind, tuple):
        return " or ".join(map(_said, kind))
    if isinstance(kind, Many):
        return f"a list of {_several(kind.kind)}"
    if isinstance(kind, list):
        return f"a list of {_several(kind[0])} that is not empty"
    return "an object" if isinstance(kind, (dict, Each)) else WORDS.get(kind, ("a value",))[0]


def _several(kind: Kind) -> str:
    """Return what is of the kind, in words."""
    if isinstance(kind, OneOf):
        return ", ".join(map(repr, kind.values))
    if isinstance(kind, tuple):
        return " or ".join(map(_several, kind))
    if isinstance(kind, (list, Many)):
        return "lists"
    return "objects" if isinstance(kind, (dict, Each)) else WORDS.get(kind, ("", "values"))[1]


def tidied(value: Any) -> Any:
    """Return the value with lone surrogates, which JSON can spell and no encoding hold, as U+FFFD in all its texts."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [tidied(item) for item in value]
    return {key: tidied(item) for key, item in value.items()} if isinstance(value, dict) else value
