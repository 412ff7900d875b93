"""Results on the same tasks, put together. In: results of several commands. Out: one result for each sort of tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fewshot.meta.curves import Curve, Measured, Point
from fewshot.meta.names import QUANTITIES, learner_in_words, split_seed

LEARNED = ("weights", "context")  # kinds that an outer loop prepared, or a checkpoint


def grouped(results: Iterable[Measured]) -> dict[tuple[str, str], list[Measured]]:
    """Return results by (tasks, quantity), with the names of learners in words."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for result in _in_words(list(results)):
        for part in _by_tasks(result):
            groups.setdefault((part.tasks, part.quantity), []).append(part)
    return groups


def _in_words(results: Sequence[Measured]) -> Iterator[Measured]:
    """Yield the results with names of learners in words.

    Learners of one name that did otherwise in another result on the same tasks are told apart.
    """
    for result in results:
        alike = [other for other in results if (other.tasks, other.quantity) == (result.tasks, result.quantity)]
        names = {curve.learner: learner_in_words(curve.learner) for curve in result.curves}
        for learner in {curve.learner for curve in result.curves if curve.kind in LEARNED}:
            names[learner] += _apart(learner, result, alike)
        if len(set(names.values())) < len(names):  # a learner was given the words of another as its name
            names = {name: name for name in names}
        yield replace(
            result,
            quantity=QUANTITIES.get(result.quantity, result.quantity),
            curves=tuple(replace(curve, learner=names[curve.learner]) for curve in result.curves),
            history={_loop_in_words(loop, names): rows for loop, rows in result.history.items()},
        )


def _apart(learner: str, result: Measured, alike: Sequence[Measured]) -> str:
    """Return what stands behind a learner's name where other results have another learner of that name; else ""."""
    mine = _curves_of(learner, result)
    different: list[Measured] = []
    for other in alike:
        curves = _curves_of(learner, other)
        if curves and all(curves != _curves_of(learner, before) for before in different):
            different.append(other)
    if len(different) < 2:
        return ""
    iterations = [_n_iterations(learner, other) for other in different]
    number = next(i for i, other in enumerate(different) if _curves_of(learner, other) == mine)
    if None not in iterations and len(set(iterations)) == len(iterations):
        return f", {iterations[number]:,} iterations"
    return f", result {number + 1}"


def plain_name(learner: str) -> str:
    """Return a learner's name without what tells it apart from others of that name."""
    return re.sub(r", ([0-9,]+ iterations|result [0-9]+)$", "", learner)


def _curves_of(learner: str, result: Measured) -> list[Curve]:
    """Return the curves of the learner of that name."""
    return [curve for curve in result.curves if curve.learner == learner and curve.kind in LEARNED]


def _n_iterations(learner: str, result: Measured) -> int | None:
    """Return the last iteration of a learner's outer loop; None where it is not in the result."""
    last = [rows[-1]["iteration"] for loop, rows in result.history.items() if rows and split_seed(loop)[0] == learner]
    last += [rows[-1]["iteration"] for loop, rows in result.history.items() if rows and loop == learner]
    return int(last[0]) if last else None


def _loop_in_words(loop: str, names: Mapping[str, str]) -> str:
    """Return the name of an outer loop: its learner's, with its seed where there are several."""
    learner, seed = (loop, None) if loop in names else split_seed(loop)
    words = names.get(learner, learner_in_words(learner))
    return words if seed is None else f"{words}, seed {seed}"


def learner_of(loop: str) -> str:
    """Return the learner that an outer loop trains, both in words."""
    learner, comma, seed = loop.rpartition(", seed ")
    return learner if comma and seed.isdecimal() else loop


def _by_tasks(measured: Measured) -> Iterator[Measured]:
    """Yield a result for each sort of tasks and quantity in it; what the outer loops reported goes with the first."""
    history = measured.history
    sorts: dict[tuple[str, str, bool], list[Curve]] = {}
    for curve in measured.curves:
        sorts.setdefault((curve.tasks, *measured.judged_by(curve)), []).append(curve)
    for (name, quantity, more_is_better), curves in sorts.items():
        yield replace(
            measured,
            tasks=f"{measured.tasks}: {name}" if name else measured.tasks,
            quantity=quantity,
            more_is_better=more_is_better,
            curves=tuple(curves),
            history=history,
        )
        history = {}


def merge(group: Sequence[Measured]) -> Measured:
    """Return all curves of one sort of tasks together; what several results hold stands once."""
    curves: dict[tuple[str, str], Curve] = {}
    history: dict[str, Any] = {}
    for result in group:
        curves |= {(curve.learner, curve.kind): curve for curve in result.curves}
        for loop, rows in result.history.items():
            history[_free_name(loop, rows, history)] = rows
    return replace(group[0], curves=tuple(curves.values()), history=history, about={})


def _free_name(loop: str, rows: object, history: Mapping[str, object]) -> str:
    """Return the name of an outer loop, with a number where other rows have it: none replaces another."""
    names = (loop, *(f"{loop}, result {number}" for number in range(2, len(history) + 2)))
    return next(name for name in names if name not in history or history[name] == rows)


def rows_of(curve: Curve) -> Iterator[dict[int, Point]]:
    """Yield points by number of examples, as they belong together on a line or in a row of a table.

    Those of different numbers of gradient steps do not. A learner that has one number of steps for each number of
    examples has chosen it; but what it does before any step is apart from what it does after some.
    """
    if len(curve.points) == len({point.n_examples for point in curve.points}):
        for after_steps in (False, True):
            if row := {point.n_examples: point for point in curve.points if (point.n_steps > 0) == after_steps}:
                yield row
        return
    for n_steps in dict.fromkeys(point.n_steps for point in curve.points):
        yield {point.n_examples: point for point in curve.points if point.n_steps == n_steps}


def last_steps(curve: Curve) -> dict[int, Point]:
    """Return the point with the most gradient steps at each number of examples."""
    points = sorted(curve.points, key=lambda point: (point.n_examples, point.n_steps))
    return {point.n_examples: point for point in points}
