"""Configurations are frozen dataclasses of plain values; here they become YAML or JSON and come back.

Partial mappings (a YAML file, dotted overrides from the command line) are laid over each other before a dataclass is
made of them, so that what is not said can still be chosen.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fewshot.base.errors import BadFile, BadValue, UnknownName
from fewshot.base.files import read_text, write_text

C = TypeVar("C")


def to_plain(config: Any) -> dict[str, Any]:
    """A configuration as nested dicts of plain values; tuples become lists."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def from_plain(kind: type[C], plain: Mapping[str, Any], *, where: str) -> C:
    """The dataclass `kind` from a mapping, nested ones included.

    An unknown key raises `UnknownName` with the nearest one; a value of the wrong type, or a missing one, `BadValue`.
    """
    if not isinstance(plain, Mapping):
        raise BadValue(f"{where} must hold keys and values, found {plain!r}")
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in plain:
        if key not in known:
            raise UnknownName(f"key in {where}", str(key), known)
    required = dataclasses.MISSING
    missing = [
        name
        for name, field in known.items()
        if name not in plain and field.default is required and field.default_factory is required
    ]
    if missing:
        raise BadValue(f"{where} lacks {', '.join(missing)}")
    return kind(**{key: cast(value, hints[key], f"{where}.{key}") for key, value in plain.items()})


def cast(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint`, or `BadValue`. YAML reads 1e-3 as text; such text becomes the number it spells."""
    if isinstance(hint, types.UnionType):
        if value is None and types.NoneType in hint.__args__:
            return None
        hint = next(option for option in hint.__args__ if option is not types.NoneType)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where=where)  # type: ignore[arg-type]
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise BadValue(f"{where} is {value!r}, keys and values are needed")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise BadValue(f"{where} is {value!r}, a list is needed")
        return tuple(cast(item, hint.__args__[0], f"{where}[{i}]") for i, item in enumerate(value))
    if hint in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _number(value, hint, where)
    if isinstance(value, hint) and isinstance(value, bool) == (hint is bool):  # to Python, True is an int
        return value
    raise BadValue(f"{where} is {value!r}, {hint.__name__} is needed")


def _number(value: int | float | str, hint: type, where: str) -> int | float:
    if type(value) is hint:
        return value  # type: ignore[return-value]
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise BadValue(f"{where} is {value!r}, a number is needed") from None
    if hint is float:
        return number
    if not number.is_integer():
        raise BadValue(f"{where} is {value!r}, a whole number is needed")
    return int(number)


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with everything that `above` says; nested mappings are merged key by key."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = lay_over(merged[key], value) if both else value
    return merged


def from_overrides(words: Iterable[str]) -> dict[str, Any]:
    """The nested mapping in `--model.n_layers 4 --optimizer.lr=1e-3`; values are read as YAML."""
    plain: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not all(name.split(".")):
            raise BadValue(f"{word!r} is not understood; overrides look like --model.n_layers 4")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise BadValue(f"--{name} needs a value")
            text = rest.pop(0)
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # ValueError: what looks like a date and is none
            value = text
        for part in reversed(name.split(".")):
            value = {part: value}
        plain = lay_over(plain, value)
    return plain


def write_yaml(path: Path, plain: Mapping[str, Any]) -> None:
    """Write a mapping as YAML in its own order, whole or not at all."""
    write_text(path, yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; anything else raises `BadFile`."""
    try:
        value = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise BadFile(f"{path} is not YAML{f': line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(value, dict):
        raise BadFile(f"{path} must hold keys and values, found {type(value).__name__}")
    return value
