"""Values in results by path. In: nested plain values, a path. Out: one number or several, with their interval.

    few.curves[learner=context, tasks=fresh].points[n_examples=64]      the only row of a list with these values
    few.history.context_*[new>=0.9].iteration                           the first row where a figure is so high
    demo.*.copying_head.induction                                       * stands for any name: one value a seed

A path that leads to a mean with `low` and `high` gives that interval; several values give their mean and its 95%
interval by Student's t.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fewshot.base.errors import BadValue
from fewshot.evaluate.variation import spread

STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\[\]]+)\]")
CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|=)\s*(.*?)\s*")
NEXT_CONDITION = re.compile(r",(?=\s*\w+\s*(?:>=|<=|=))")
INTERVAL = {"mean", "low", "high"}
MAX_NAMES = 8  # in a message


class NotReached(BadValue):
    """No row of a list is as high or as low as asked: a statement about it does not hold."""


@dataclass(frozen=True)
class Value:
    """A number, or the mean of several with its 95% interval, if it has one."""

    mean: float
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...] = ()  # that it is the mean of


def value_at(results: Mapping[str, Any], path: str) -> Value:
    """Return the value at a path; raises BadValue where it leads nowhere, NotReached where a figure stays below."""
    found_values = list(_follow(results, list(_steps(path)), path))
    if len(found_values) == 1 and isinstance(found_values[0], Mapping):
        point = found_values[0]
        return Value(point["mean"], point["low"], point["high"], (point["mean"],))
    numbers = tuple(float(value["mean"] if isinstance(value, Mapping) else value) for value in found_values)
    summary = spread(numbers)
    if summary.half_width is None:
        return Value(summary.mean, values=numbers)
    return Value(summary.mean, summary.mean - summary.half_width, summary.mean + summary.half_width, numbers)


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Yield (name, "") or ("", conditions) for each step of a path."""
    at = 0
    while at < len(path):
        step = STEP.match(path, at)
        if step is None:
            raise BadValue(
                f"the path {path!r} is not understood at {path[at:]!r}: give it as in 'run.list[key=value].x'"
            )
        yield step[1] or "", step[2] or ""
        at = step.end()


def _follow(value: Any, steps: Sequence[tuple[str, str]], path: str) -> Iterator[Any]:
    """Yield the values that the steps lead to; raises BadValue if there are none."""
    if not steps:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number or (isinstance(value, Mapping) and value.keys() >= INTERVAL)):
            raise BadValue(
                f"the path {path!r} leads to {_short(value)}, a number or a mean with its interval is needed"
            )
        yield value
        return
    (name, conditions), rest = steps[0], steps[1:]
    if name:
        yield from (end for inside in _by_name(value, name, path) for end in _follow(inside, rest, path))
    else:
        yield from _follow(_row(value, conditions, path), rest, path)


def _by_name(value: Any, pattern: str, path: str) -> list[Any]:
    """Return what a mapping holds under a name, or under all names that a pattern with * fits."""
    if not isinstance(value, Mapping):
        raise BadValue(f"the path {path!r}: {pattern!r} is asked of {_short(value)}, which has no names")
    values = [inside for key, inside in value.items() if fnmatchcase(str(key), pattern)]
    if not values:
        raise BadValue(f"the path {path!r}: there is no {pattern!r}, allowed: {_names(value)}")
    return values


def _row(value: Any, conditions: str, path: str) -> Any:
    """Return the only row with these values, or the first that is so high or so low."""
    if not isinstance(value, list):
        raise BadValue(f"the path {path!r}: [{conditions}] is asked of {_short(value)}, which is no list")
    rows, bounded = value, False
    for text in NEXT_CONDITION.split(conditions):
        condition = CONDITION.fullmatch(text)
        if condition is None:
            raise BadValue(f"the path {path!r}: [{conditions}] must be key=value, key>=number or key<=number")
        key, sign, wanted = condition.groups()
        if rows and not any(isinstance(row, Mapping) and key in row for row in rows):
            raise BadValue(f"the path {path!r}: no row has {key!r}, allowed: {_names(rows[0])}")
        before, rows = rows, [row for row in rows if isinstance(row, Mapping) and _fits(row.get(key), sign, wanted)]
        bounded |= sign != "="
        if not rows and sign != "=":
            raise NotReached(f"{key} is never {sign} {wanted}")
        if not rows:
            there = ", ".join(dict.fromkeys(_short(row.get(key)) for row in before[:MAX_NAMES]))
            raise BadValue(f"the path {path!r}: no row has {key} {wanted}, there are {there}")
    if len(rows) > 1 and not bounded:
        raise BadValue(f"the path {path!r}: [{conditions}] fits {len(rows)} rows: add another key=value")
    return rows[0]


def _fits(value: Any, sign: str, wanted: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(wanted)
        except ValueError:
            return False
        return bool({"=": value == number, ">=": value >= number, "<=": value <= number}[sign])
    return sign == "=" and str(value) == wanted


def _names(value: Any) -> str:
    names = sorted(map(str, value)) if isinstance(value, Mapping) else []
    return ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "") or "nothing"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
