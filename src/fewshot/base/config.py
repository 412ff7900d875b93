"""Configurations: frozen dataclasses of plain values, written as YAML or JSON and read back.

Partial mappings (a YAML file, dotted overrides from the command line) are merged before a dataclass is made of them, so
that values that nobody gave can still be chosen.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fewshot.base.errors import BadFile, BadValue, UnknownName
from fewshot.base.files import read_text, write_text

C = TypeVar("C")

MAX_YAML_NODES = 20_000  # with every alias written out: a file that grows beyond that is a mistake or an attack
MAX_YAML_DEPTH = 100
SPELLED_BOOLS = {"yes": True, "on": True, "no": False, "off": False}  # beside YAML's own true and false


class _PlainLoader(yaml.SafeLoader):
    """YAML 1.2's plain values: `no`, `off` and dates are text; no more is read than `MAX_YAML_NODES` values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._n_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._n_nodes += 1
        _check_number(self._n_nodes)
        return super().compose_node(parent, index)


_PlainLoader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp)
        for tag, regexp in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)


def to_plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dicts of plain values; tuples become lists."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def from_plain(kind: type[C], plain: Mapping[str, Any], *, where: str) -> C:
    """Return the dataclass `kind` from a mapping, nested ones included.

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
    """Return `value` as the type `hint`; one that is of another type raises `BadValue`.

    YAML reads 1e-3 as text; such text becomes the number it spells.
    """
    if isinstance(hint, types.UnionType):
        if value is None and types.NoneType in hint.__args__:
            return None
        options = [option for option in hint.__args__ if option is not types.NoneType]
        mappings = [option for option in options if typing.get_origin(option) is dict and isinstance(value, dict)]
        hint = (mappings or options)[0]
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
    if hint is str and isinstance(value, (int, float)):  # a name that looks like a number is a name
        return _spelled(value) if isinstance(value, bool) else str(value)
    if hint is bool and isinstance(value, str) and value.lower() in SPELLED_BOOLS:
        return SPELLED_BOOLS[value.lower()]
    if hint in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _number(value, hint, where)
    if isinstance(value, hint) and isinstance(value, bool) == (hint is bool):  # to Python, True is an int
        return value
    raise BadValue(f"{where} is {_spelled(value)}, {hint.__name__} is needed")


def _spelled(value: Any) -> str:
    """Return a value as a user types it in YAML: null, true and false for None, True and False."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _number(value: int | float | str, hint: type, where: str) -> int | float:
    if type(value) is hint is int:
        return value
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise BadValue(f"{where} is {value!r}, a number is needed") from None
    if hint is float:
        if not math.isfinite(number):
            raise BadValue(f"{where} is {value}, a finite number is needed")
        return number
    if not number.is_integer():
        raise BadValue(f"{where} is {value!r}, a whole number is needed")
    return int(number)


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` in place of its own; nested mappings are merged key by key."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = lay_over(merged[key], value) if both else value
    return merged


def from_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Return the nested mapping in `--model.n_layers 4 --optimizer.lr=1e-3`; values are read as YAML."""
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
            value = _parse_yaml(text)
        except (yaml.YAMLError, ValueError):  # ValueError: a number of thousands of digits
            value = text
        for part in reversed(name.split(".")):
            value = {part: value}
        plain = lay_over(plain, value)
    return plain


def _parse_yaml(text: str) -> Any:
    """Return the value in a YAML text; one whose aliases multiply, or that is nested too deeply, raises `BadValue`."""
    loader = _PlainLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except RecursionError:
        raise BadValue(f"it is nested more than {MAX_YAML_DEPTH} deep") from None
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Raise `BadValue` for more than `MAX_YAML_NODES` values, each alias counted as what it stands for."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > MAX_YAML_DEPTH:
            raise BadValue(f"it is nested more than {MAX_YAML_DEPTH} deep, or an alias holds itself")
        if id(node) not in sizes:
            inside: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                inside = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                inside = node.value
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in inside)
        _check_number(sizes[id(node)])
        return sizes[id(node)]

    size(root, 0)


def _check_number(n_nodes: int) -> None:
    if n_nodes > MAX_YAML_NODES:
        raise BadValue(f"it holds more than {MAX_YAML_NODES:,} values once its aliases are written out")


def write_yaml(path: Path, plain: Mapping[str, Any]) -> None:
    """Write a mapping as YAML in its own order, whole or not at all."""
    write_text(path, yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; anything else raises `BadFile`."""
    try:
        value = _parse_yaml(read_text(path))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise BadFile(f"{path} is not YAML{f': line {mark.line + 1}' if mark else ''}") from None
    except BadValue as error:
        raise BadFile(f"{path} is not usable YAML: {error}") from None
    if not isinstance(value, dict):
        raise BadFile(f"{path} must hold keys and values, found {type(value).__name__}")
    return value
