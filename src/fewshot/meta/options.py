"""The options of an experiment, as its help lists them. In: a kind of experiment. Out: groups of options."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fewshot.base.config import to_plain
from fewshot.base.fields import as_yaml, field_comments
from fewshot.meta.experiment import EXPERIMENTS


@dataclass(frozen=True)
class Option:
    """A field of a configuration, as the command line takes it."""

    name: str  # dotted
    default: str  # as YAML has it
    comment: str


@dataclass(frozen=True)
class OptionGroup:
    """The options of one dataclass of a configuration."""

    name: str  # dotted; "" for the configuration itself
    summary: str
    options: tuple[Option, ...]


def description(kind: str) -> str:
    """Return what an experiment of this kind does, which is the docstring of its module."""
    return inspect.getdoc(sys.modules[EXPERIMENTS[kind][0].__module__]) or ""


def option_groups(kind: str) -> list[OptionGroup]:
    """Return all options of a kind with their defaults, a group for each dataclass of its configuration."""
    return list(_option_groups(EXPERIMENTS[kind][0](), "", ""))


def _option_groups(config: Any, name: str, comment: str) -> Iterator[OptionGroup]:
    comments = field_comments(type(config))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    nested = {key: value for key, value in values.items() if dataclasses.is_dataclass(value)}
    plain = to_plain(config)
    options = tuple(
        Option(_dotted(name, key), as_yaml(plain[key]), comments[key]) for key in values if key not in nested
    )
    summary = (inspect.getdoc(config) or "").partition("\n\n")[0].replace("\n", " ")
    yield OptionGroup(name, f"{summary} ({comment})" if comment else summary, options)
    for key, value in nested.items():
        yield from _option_groups(value, _dotted(name, key), comments[key])


def _dotted(group: str, name: str) -> str:
    return f"{group}.{name}" if group else name
