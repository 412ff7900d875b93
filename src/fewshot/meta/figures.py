"""Charts of learners in weights and in context. In: a result with its names in words. Out: SVG, with name and caption.

Each quantity stands against the three things that learning a task takes: examples, gradient steps, FLOPs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fewshot.meta.curves import Curve, Measured, Point
from fewshot.meta.merge import LEARNED, last_steps, learner_of, rows_of
from fewshot.meta.names import DASHES, learner_in_words
from fewshot.report.chart import FILLS, Fill, Line, Scale, Style, Styles, lines_svg

LONGEST_NAME = 100  # letters, of a figure
ITERATIONS = "iterations of the outer loop"


@dataclass(frozen=True)
class Figure:
    """A chart with a name that is fit for files and for elements of a page."""

    name: str
    caption: str
    svg: str


def figures(measured: Measured, taken: set[str], styles: Styles) -> Iterator[Figure]:
    """Yield charts of everything that one sort of tasks has to show.

    Their names are none of those in `taken`, to which they are added; `styles` are those of the page.
    """
    curves = measured.curves
    axes: tuple[tuple[str, str, Scale, list[Line]], ...] = (
        ("examples", "examples of the new task", "shots", list(against_examples(curves, styles))),
        ("steps", "gradient steps on the examples", "shots", list(_against_steps(curves, styles))),
        ("flops", "FLOPs to learn one task and answer once", "decades", list(against_flops(curves, styles))),
    )
    learned = [curve for curve in curves if curve.kind in LEARNED]
    highest = max((point.high for curve in learned for point in curve.points), default=1.0)
    for name, label, scale, lines in axes:
        if len({x for line in lines for x in line.x}) > 1:
            name = _own_name(f"{measured.tasks}-{name}", taken)
            svg = lines_svg(
                lines,
                name=name,
                x_label=label,
                y_label=measured.quantity,
                scale=scale,
                top=1.15 * highest,  # a baseline may be far off
            )
            yield Figure(name, f"{measured.quantity} against {label}", svg)
    loops = {loop: rows for loop, rows in measured.history.items() if len(rows) > 1}
    if loops:
        name = _own_name(f"{measured.tasks}-loss", taken)
        svg = lines_svg(list(_losses(loops, styles)), name=name, x_label=ITERATIONS, y_label="loss")
        yield Figure(name, "loss during the outer loops", svg)
    firsts = {learner_of(loop): loop for loop in reversed(loops)}  # of several seeds one is shown
    for loop, rows in loops.items():
        if loop == firsts[learner_of(loop)] and (keys := [key for key in rows[0] if key not in ("iteration", "loss")]):
            name = _own_name(f"{measured.tasks}-{loop}-phases", taken)
            lines, units = _phases(learner_of(loop), rows, keys, measured.quantity, styles)
            svg = lines_svg(lines, name=name, x_label=ITERATIONS, y_label=", ".join(units), scale="decades")
            yield Figure(name, f"{loop}, as its outer loop went: {', '.join(units)}", svg)


def _own_name(name: str, taken: set[str]) -> str:
    """Return the name without what file names, links and attributes should not hold, with a number if it is taken."""
    plain = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME]
    own = next(free for free in (plain, *(f"{plain}-{n}" for n in range(2, len(taken) + 3))) if free not in taken)
    taken.add(own)
    return own


def standalone(svg: str) -> str:
    """Return a figure for a file of its own, in an ink that reads on white and on black."""
    return svg.replace("<svg ", '<svg style="color: #77818f" ', 1)


def _line(label: str, curve: Curve, points: Sequence[Point], x: Sequence[float], style: Style, fill: Fill) -> Line:
    """Return a line of one learner's points."""
    return Line(
        label=label,
        x=x,
        y=[point.mean for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
        style=style_of(curve, style),
        fill=fill,
    )


def style_of(curve: Curve, style: Style) -> Style:
    """Return the learner's style as its kind is drawn: baselines are dashed, bounds dotted, both without markers."""
    return replace(style, dash=DASHES[curve.kind], marker=style.marker if curve.kind in LEARNED else "")


def _n_steps(n: int) -> str:
    """Return a number of gradient steps in words."""
    return "1 step" if n == 1 else f"{n} steps"


def against_examples(curves: Sequence[Curve], styles: Styles) -> Iterator[Line]:
    """Yield lines of the most gradient steps at each number of examples; other numbers of steps are other lines."""
    for curve in curves:
        last = last_steps(curve)
        rows = [[point for n, point in sorted(row.items()) if last[n] is point] for row in rows_of(curve)]
        rows = sorted(filter(None, rows), key=lambda row: -row[0].n_steps)
        several = curve.kind == "weights" and len(curve.points) > len(last)
        for row, fill in zip(rows, itertools.cycle(FILLS), strict=False):
            label = curve.learner
            if several or len(rows) > 1:
                label += f", {_n_steps(row[0].n_steps)}"
            yield _line(label, curve, row, [point.n_examples for point in row], styles.of(curve.learner), fill)


def _against_steps(curves: Sequence[Curve], styles: Styles) -> Iterator[Line]:
    """Yield a line for each number of examples that has several numbers of steps; of more than 3, first and last."""
    for curve in curves:
        by_examples: dict[int, list[Point]] = {}
        for point in sorted(curve.points, key=lambda point: (point.n_examples, point.n_steps)):
            by_examples.setdefault(point.n_examples, []).append(point)
        several = [points for points in by_examples.values() if len(points) > 1]
        ends = several if len(several) <= 3 else [several[0], several[-1]]
        for points, fill in zip(ends, FILLS, strict=False):
            label = f"{curve.learner}, {points[0].n_examples} examples"
            yield _line(label, curve, points, [point.n_steps for point in points], styles.of(curve.learner), fill)


def against_flops(curves: Sequence[Curve], styles: Styles) -> Iterator[Line]:
    """Yield a line for each row of the table: points of different numbers of steps are on no common line."""
    for curve in curves:
        rows = [[point for point in row.values() if point.flops] for row in rows_of(curve)]
        rows = [sorted(row, key=lambda point: point.flops or 0.0) for row in rows if row]
        for row, fill in zip(rows, itertools.cycle(FILLS), strict=False):
            label = f"{curve.learner}, {_n_steps(row[0].n_steps)}" if len(rows) > 1 else curve.learner
            yield _line(label, curve, row, [point.flops or 0.0 for point in row], styles.of(curve.learner), fill)


def _losses(loops: Mapping[str, Sequence[Mapping[str, float]]], styles: Styles) -> Iterator[Line]:
    """Yield a line for each outer loop; loops of one learner, of several seeds, are named once."""
    named = set()
    for loop, rows in loops.items():
        learner = learner_of(loop)
        yield _history("" if learner in named else learner, rows, "loss", styles.of(learner))
        named.add(learner)


def _history(label: str, rows: Sequence[Mapping[str, float]], key: str, style: Style, fill: Fill = "full") -> Line:
    """Return a line of what an outer loop reported under one key."""
    x, y = [row["iteration"] for row in rows], [row[key] for row in rows]
    return Line(label=label, x=x, y=y, style=replace(style, dash="-"), fill=fill)


def _phases(
    learner: str, rows: Sequence[Mapping[str, float]], keys: Sequence[str], quantity: str, styles: Styles
) -> tuple[list[Line], list[str]]:
    """Return lines, and their units, of what a loop reports beside its loss, by keys that `watch` of its tasks gives.

    What is a distance from a rule (`kl_bigram`) looks as the rule does; what is the learner's own (`error_5`, after 5
    examples) looks as the learner does.
    """
    lines: list[Line] = []
    units: list[str] = []
    for key, fill in zip(keys, itertools.cycle(FILLS), strict=False):
        if key.startswith("kl_"):
            rule = learner_in_words(key.removeprefix("kl_"))
            lines.append(_history(rule, rows, key, styles.of(rule)))
            units.append("KL divergence (nats)")
            continue
        label, unit = key, key.removeprefix("validation ")
        if key.startswith("error_"):
            label, unit = f"after {key.removeprefix('error_')} examples", quantity
        lines.append(_history(label, rows, key, styles.of(learner), fill))
        units.append(unit)
    return lines, list(dict.fromkeys(units))
