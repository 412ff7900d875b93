"""Curves of error or accuracy on unseen tasks, alike for every learner. In: values of tasks. Out: curves, and JSON.

A learner in weights takes gradient steps on K examples; a learner in context reads them. Both are judged on other
examples of the same unseen task, against the number of examples, of gradient steps and of FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadValue, Diverged, check
from fewshot.evaluate.variation import spread

MAX_COUNT = 2**53  # larger whole numbers are not exact as floats, and so not on an axis
MAX_VALUE = 1e300  # larger ones cannot be drawn
CURVE_KINDS = ("weights", "context", "baseline", "bound")


@dataclass(frozen=True, kw_only=True)
class Point:
    """The mean over unseen tasks, with its 95% interval, after so many examples and gradient steps."""

    n_examples: int  # of the new task
    n_steps: int = 0  # gradient steps on them
    flops: float | None = None  # to learn one task from its examples and answer one query
    mean: float
    low: float
    high: float
    n: int  # tasks, or seeds, that the interval is over

    def __post_init__(self) -> None:
        counts = (self.n_examples, self.n_steps, self.n - 1)
        check(
            all(0 <= count < MAX_COUNT for count in counts),
            f"a point has n_examples {self.n_examples}, n_steps {self.n_steps} and n {self.n}, allowed: from 0, "
            f"from 0, from 1, below {MAX_COUNT}",
        )
        check(
            _is_figure(self.mean) and self.low <= self.mean <= self.high and _is_figure(self.high - self.low),
            f"a point's mean is {self.mean}, its interval {self.low} to {self.high}: must be finite and in order",
        )
        check(self.flops is None or 0 <= self.flops < math.inf, f"a point's flops is {self.flops}, must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The points of one learner."""

    learner: str
    kind: str  # of CURVE_KINDS: "weights" learns by gradient steps, "context" by reading; "bound" is the best possible
    points: tuple[Point, ...]
    tasks: str = ""  # the family of tasks, where a result has several
    quantity: str = ""  # what a point's mean is, where a result has several
    more_is_better: bool = False  # of that quantity
    n_weights: int | None = None  # that the outer loop learned
    training_flops: float | None = None  # of the outer loop
    training_seconds: float | None = None

    def __post_init__(self) -> None:
        check(self.kind in CURVE_KINDS, f"kind is {self.kind!r}, allowed: {', '.join(CURVE_KINDS)}")
        for name in ("training_flops", "training_seconds"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, f"{name} is {value}, must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result of one `fewshot meta` command: curves on unseen tasks, and how training went."""

    tasks: str
    quantity: str  # what a point's mean is: "mean squared error", "accuracy"
    curves: tuple[Curve, ...]
    more_is_better: bool = False
    history: dict[str, Any] = field(default_factory=dict)  # rows that the outer loops logged, by name
    about: dict[str, Any] = field(default_factory=dict)  # settings and machine

    def __post_init__(self) -> None:
        for name, rows in self.history.items():
            alike = isinstance(rows, list) and all(_is_row(row) and row.keys() == rows[0].keys() for row in rows)
            check(alike, f"history.{name} must be a list of rows with the same figures")

    def judged_by(self, curve: Curve) -> tuple[str, bool]:
        """Return a curve's quantity, and whether more of it is better."""
        return (curve.quantity, curve.more_is_better) if curve.quantity else (self.quantity, self.more_is_better)


def _is_row(row: object) -> bool:
    return isinstance(row, Mapping) and {"iteration", "loss"} <= row.keys() and all(map(_is_figure, row.values()))


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_VALUE


def to_json(measured: Measured) -> dict[str, Any]:
    """Return a result as plain values."""
    return to_plain(measured)


def from_json(plain: Mapping[str, Any], *, where: str) -> Measured:
    """Return the result from plain values; raises BadValue, as `from_plain` does, if they are none."""
    try:
        return from_plain(Measured, plain, where=where)
    except BadValue as error:
        if where in str(error):
            raise
        raise BadValue(f"{where} is not a result of fewshot meta: {error}") from None


def point(
    values: Sequence[float],
    *,
    n_examples: int,
    n_steps: int = 0,
    flops: float | None = None,
    is_share: bool = False,
) -> Point:
    """Return the mean over tasks (or seeds) and its 95% interval by Student's t; raises Diverged if one is lost.

    The interval of a share is cut to [0, 1].
    """
    lost = sum(not math.isfinite(value) for value in values)
    if lost:
        given = f"{n_steps} gradient steps on {n_examples} examples"
        way_out = (
            "lower its step size, such as learner.step_size, or test with fewer steps"
            if n_steps
            else "the model has diverged: lower lr"
        )
        raise Diverged(f"after {given} the figure of {lost} of {len(values)} tasks is not a finite number: {way_out}")
    summary = spread(values)
    half = summary.half_width or 0.0
    low, high = summary.mean - half, summary.mean + half
    if is_share:
        low, high = max(0.0, low), min(1.0, high)
    return Point(
        n_examples=n_examples, n_steps=n_steps, flops=flops, mean=summary.mean, low=low, high=high, n=summary.n
    )


def over_seeds(results: Sequence[Measured]) -> Measured:
    """Return the result of several seeds, which measured the same curves: points are means and intervals over them."""
    first = results[0]
    curves = []
    for same in zip(*(result.curves for result in results), strict=True):
        _, is_share = first.judged_by(same[0])  # more of nothing else is better here
        points = [
            point(
                [seed.mean for seed in seeds],
                n_examples=seeds[0].n_examples,
                n_steps=seeds[0].n_steps,
                flops=seeds[0].flops,
                is_share=is_share,
            )
            for seeds in zip(*(curve.points for curve in same), strict=True)
        ]
        curves.append(replace(same[0], points=tuple(points)))
    return replace(first, curves=tuple(curves))
