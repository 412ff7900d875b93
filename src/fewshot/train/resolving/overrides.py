"""What a user sets for a run, laid over each other in order: a file, named options, dotted options.

A value may have two spellings: `n_tokens` is short for `schedule.n_tokens`, `text` for one source in `data.sources`, a
preset stands for a model. Every layer is brought to one spelling before the next is laid over it, so that the last
layer wins, however it spells a value. In: partial mappings. Out: one mapping. Knows nothing of what the values mean.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fewshot.base.config import cast, lay_over
from fewshot.base.errors import BadValue

SPELLINGS = {"n_tokens": ("schedule", "n_tokens"), "text": ("data", "sources")}  # the short one, the field
MODEL_SIZES = ("n_layers", "d_model", "n_heads")  # a model that is no preset has all of them


def laid_over(layers: Iterable[tuple[str, Mapping[str, Any]]], *, say: Callable[[str], None]) -> dict[str, Any]:
    """Lay each (name, partial configuration) over those before it; `say` is told where one spelling replaces another.

    A preset over the sizes of a model, or two spellings in one layer, raise BadValue: no order tells which is meant.
    """
    given: dict[str, Any] = {}
    given_by: dict[str, str] = {}  # which layer gave a value that has two spellings, and how
    for where, layer in layers:
        plain = one_spelling(layer, where)
        sizes = [f"model.{name}" for name in MODEL_SIZES if name in section(given, "model")]
        if plain.get("preset") is not None and sizes:
            raise BadValue(
                f"preset {plain['preset']} of {where} and {', '.join(sizes)} of {given_by['model']} both say what the "
                "model is: leave one out"
            )
        for short, (name, field) in SPELLINGS.items():
            if section(plain, name).get(field) is None:
                continue
            spelling = f"{short if layer.get(short) is not None else f'{name}.{field}'} of {where}"
            if short in given_by:
                say(f"{spelling} overrides {given_by[short]}")
            given_by[short] = spelling
        if section(plain, "model"):
            given_by["model"] = where
        given = lay_over(given, plain)
    return given


def one_spelling(given: Mapping[str, Any], where: str = "the configuration") -> dict[str, Any]:
    """Return the same values with `schedule.n_tokens` and `data.sources` in place of their short spellings.

    A value that is given in both spellings raises BadValue.
    """
    plain = dict(given)
    for short, (name, field) in SPELLINGS.items():
        value = plain.pop(short, None)
        if value is None:
            continue
        inside = section(given, name)
        if inside.get(field) is not None:
            raise BadValue(f"{where} gives {short} and {name}.{field}, two spellings of one value: leave one out")
        plain[name] = {**inside, field: [{"name": "text", "text": paths(value, "text")}] if short == "text" else value}
    return plain


def section(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a partial configuration; anything but keys and values raises BadValue."""
    inside = given.get(name, {})
    if not isinstance(inside, Mapping):
        raise BadValue(f"{name} must hold keys and values, found {inside!r}")
    return inside


def paths(value: Any, where: str) -> list[str]:
    """Return one path or several as a list, with the user's home in place of ~."""
    several = cast([value] if isinstance(value, str) else value, tuple[str, ...], where)
    return [at_home(path) for path in several]


def at_home(path: str) -> str:
    """Return `path` with the user's home in place of ~, as a shell has it."""
    return os.path.expanduser(path)  # noqa: PTH111 - a Path would also respell what has no ~
