"""One page for learners in weights and in context. In: what was measured. Out: HTML, and its figures.

Each quantity stands against the three things that learning a task takes: examples, gradient steps, FLOPs.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from fewshot.evaluate.reports.figures import COLOURS, Line, Scale, lines_svg
from fewshot.evaluate.reports.page import in_figure, plain_table, side_by_side, write_page
from fewshot.meta.curves import Curve, Measured, Point

LEARNED = ("weights", "context")  # kinds that an outer loop prepared, or a checkpoint
MARKERS = "osD^vPX*"
STYLES = {"weights": "-", "context": "-", "baseline": "--", "bound": ":"}
KIND_WORDS = {
    "weights": "in weights (gradient steps)",
    "context": "in context (reading)",
    "baseline": "baseline",
    "bound": "best possible",
}
LONGEST_NAME, LONGEST_LABEL = 100, 40  # letters, of a figure and in it
ITERATIONS = "iterations of the outer loop"
LOOPS = """<p>GPT-3's Figure 1.1 has two loops. In the <b>outer</b> one gradient descent on many tasks shapes the
weights before any of the tasks below is seen. In the <b>inner</b> one a new task is learned from a few of its examples:
by gradient steps on them (MAML and its relatives, fine-tuning), or by reading them as a prompt, with the weights at
rest. Every figure is measured on fresh tasks, which the outer loop did not draw; the <code>hidden_</code> families of
text have so few rules that there only examples and questions are fresh. Bands are 95% intervals.</p>"""


def write_report(path: Path, results: Sequence[Measured], *, title: str = "fewshot: learning to learn") -> None:
    """Write the page; results on the same tasks and quantity share their figures."""
    parts, taken = [LOOPS], set[str]()
    for (tasks, quantity), group in grouped(results).items():
        merged = merge(group)
        parts += [f"<h2>{escape(tasks)}: {escape(quantity)}</h2>"]
        parts += [side_by_side([in_figure(caption, svg) for _, caption, svg in figures(merged, taken)])]
        columns, rows = pivot(merged)
        rows = [[cell.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}") for cell in row] for row in rows]
        parts += [plain_table(rows, columns), _winners_table(merged), _points_table(merged), *map(_settings, group)]
    write_page(path, title, parts)


def grouped(results: Iterable[Measured]) -> dict[tuple[str, str], list[Measured]]:
    """Return results by (tasks, quantity)."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in results:
        for part in _by_tasks(one):
            groups.setdefault((part.tasks, part.quantity), []).append(part)
    return groups


def _by_tasks(measured: Measured) -> Iterator[Measured]:
    """Yield a result for each sort of tasks in it; what the outer loops reported goes with the first."""
    history = measured.history
    for name in dict.fromkeys(curve.tasks for curve in measured.curves):
        curves = tuple(curve for curve in measured.curves if curve.tasks == name)
        tasks = f"{measured.tasks}: {name}" if name else measured.tasks
        yield replace(measured, tasks=tasks, curves=curves, history=history)
        history = {}


def merge(group: Sequence[Measured]) -> Measured:
    """Return all curves of one sort of tasks together; a baseline that several results hold stands once.

    Learners of one name that did otherwise in another result, and their outer loops, get a number behind it.
    """
    curves: dict[tuple[str, str], Curve] = {}
    learned: dict[str, Curve] = {}
    history: dict[str, Any] = {}
    for one in group:
        for curve in one.curves:
            name = _free(curve.learner, curve, learned) if curve.kind in LEARNED else curve.learner
            learned |= {name: curve} if curve.kind in LEARNED else {}
            curves[name, curve.kind] = replace(curve, learner=name)
        history |= {_free(name, rows, history): rows for name, rows in one.history.items()}
    first = group[0]
    return Measured(
        tasks=first.tasks,
        quantity=first.quantity,
        curves=tuple(curves.values()),
        more_is_better=first.more_is_better,
        history=history,
    )


def _free(name: str, value: object, taken: Mapping[str, object]) -> str:
    """Return the name, with a number behind it where it is taken by another value."""
    names = itertools.chain([name], (f"{name} ({n})" for n in itertools.count(2)))
    return next(free for free in names if taken.get(free, value) == value)


def figures(measured: Measured, taken: set[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield (name, caption, SVG) of everything that one sort of tasks has to show.

    A name is fit for files and for elements of a page; it is none of those in `taken`, to which it is added.
    """
    taken = set() if taken is None else taken
    quantity = _drawn(measured.quantity)
    axes: tuple[tuple[str, str, Scale, list[Line]], ...] = (
        ("examples", "examples of the new task", "shots", list(_against_examples(measured.curves))),
        ("steps", "gradient steps on them", "shots", list(_against_steps(measured.curves))),
        ("flops", "FLOPs to learn one task and answer once", "decades", list(_against_flops(measured.curves))),
    )
    learned = [curve for curve in measured.curves if curve.kind in LEARNED]
    top = 1.15 * max((one.high for curve in learned for one in curve.points), default=1.0)  # a baseline may be far off
    for name, label, scale, lines in axes:
        if len({x for line in lines for x in line.x}) > 1:
            name = _own_name(f"{measured.tasks}-{name}", taken)
            svg = lines_svg(lines, name=name, x_label=label, y_label=quantity, scale=scale, top=top)
            yield name, f"{measured.quantity} against {label}", svg
    went = {loop: rows for loop, rows in measured.history.items() if len(rows) > 1}
    if went:
        name = _own_name(f"{measured.tasks}-loss", taken)
        lines = [_went(loop, rows, "loss", number) for number, (loop, rows) in enumerate(went.items())]
        yield name, "the outer loops as they went", lines_svg(lines, name=name, x_label=ITERATIONS, y_label="loss")
    for loop, rows in went.items():
        keys = [key for key in rows[0] if key not in ("iteration", "loss")]
        if keys:
            name = _own_name(f"{measured.tasks}-{loop}-phases", taken)
            spelled = [_in_words(key, measured.quantity) for key in keys]
            lines = [_went(label, rows, key, n) for n, (key, (label, _)) in enumerate(zip(keys, spelled, strict=True))]
            y_label = _drawn(", ".join(dict.fromkeys(unit for _, unit in spelled)))
            svg = lines_svg(lines, name=name, x_label=ITERATIONS, y_label=y_label, scale="decades")
            yield name, f"{loop} as its outer loop went", svg


def _in_words(key: str, quantity: str) -> tuple[str, str]:
    """Return (label, unit) of a figure that a loop reports beside its loss, as `watch` of the kinds of tasks names
    them.
    """
    if key.startswith("kl_"):
        return f"from the {key.removeprefix('kl_')} reader", "KL divergence (nats)"
    if key.startswith("error_"):
        return f"after {key.removeprefix('error_')} examples", quantity
    return key, key.removeprefix("validation ")


def _own_name(name: str, taken: set[str]) -> str:
    """Return the name without what file names, links and attributes should not hold, with a number if it is taken."""
    plain = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME]
    own = next(free for free in (plain, *(f"{plain}-{n}" for n in range(2, len(taken) + 3))) if free not in taken)
    taken.add(own)
    return own


def _drawn(text: str) -> str:
    """Return the text as matplotlib draws it letter by letter: no formulas, no line breaks, no labels that it leaves
    out.
    """
    short = text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL]}..."
    plain = "".join(letter if letter.isprintable() else " " for letter in short).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def standalone(svg: str) -> str:
    """Return a figure for a file of its own, in an ink that reads on white and on black."""
    return svg.replace("<svg ", '<svg style="color: #77818f" ', 1)


def _went(label: str, rows: Sequence[Mapping[str, float]], key: str, number: int) -> Line:
    """Return one figure of an outer loop's reports."""
    at, values = [row["iteration"] for row in rows], [row[key] for row in rows]
    return Line(label=_drawn(label), x=at, y=values, colour=COLOURS[number % len(COLOURS)], marker="")


def _line(
    curve: Curve, points: Sequence[Point], x: Sequence[float], number: int, *, label: str = "", marker: str = "o"
) -> Line:
    """In the colour of that number, which is the learner's in all figures."""
    return Line(
        label=_drawn(label or curve.learner),
        x=x,
        y=[one.mean for one in points],
        low=[one.low for one in points],
        high=[one.high for one in points],
        colour=COLOURS[number % len(COLOURS)],
        style=STYLES[curve.kind],
        marker=marker if curve.kind in LEARNED else "",
    )


def _against_examples(curves: Sequence[Curve]) -> Iterator[Line]:
    """Yield the most gradient steps at each number of examples."""
    for number, curve in enumerate(curves):
        at = _last_steps(curve)
        yield _line(curve, list(at.values()), list(at), number)


def _last_steps(curve: Curve) -> dict[int, Point]:
    """Return the point with the most gradient steps at each number of examples."""
    points = sorted(curve.points, key=lambda one: (one.n_examples, one.n_steps))
    return {one.n_examples: one for one in points}


def _against_steps(curves: Sequence[Curve]) -> Iterator[Line]:
    """Yield a line for each number of examples that was measured at several numbers of steps; of many the first and
    last.
    """
    for number, curve in enumerate(curves):
        by_examples = itertools.groupby(
            sorted(curve.points, key=lambda one: (one.n_examples, one.n_steps)), key=lambda one: one.n_examples
        )
        groups = ((n_examples, list(group)) for n_examples, group in by_examples)
        several = [(n_examples, points) for n_examples, points in groups if len(points) > 1]
        ends = several if len(several) <= 3 else [several[0], several[-1]]
        for (n_examples, points), marker in zip(ends, itertools.cycle(MARKERS), strict=False):
            label = f"{curve.learner}, {n_examples} examples"
            yield _line(curve, points, [one.n_steps for one in points], number, label=label, marker=marker)


def _against_flops(curves: Sequence[Curve]) -> Iterator[Line]:
    """Yield a line for each row of the table: points of different numbers of steps are of no one curve."""
    for number, curve in enumerate(curves):
        rows = [[one for one in row.values() if one.flops] for row in _rows(curve)]
        rows = [sorted(row, key=lambda one: one.flops or 0.0) for row in rows if row]
        for row, marker in zip(rows, itertools.cycle(MARKERS), strict=False):
            label = f"{curve.learner}, steps: {row[0].n_steps}" if len(rows) > 1 else curve.learner
            yield _line(curve, row, [one.flops or 0.0 for one in row], number, label=label, marker=marker)


def winners(measured: Measured) -> list[tuple[int, str, str, bool]]:
    """Of each number of examples (it, the best learner, the next one, whether their intervals are apart)."""
    found = []
    at = {curve.learner: _last_steps(curve) for curve in measured.curves if curve.kind in LEARNED}
    for n_examples in sorted({n for points in at.values() for n in points}):
        ranked = sorted(
            ((points[n_examples], name) for name, points in at.items() if n_examples in points),
            key=lambda pair: pair[0].mean,
            reverse=measured.more_is_better,
        )
        if len(ranked) > 1:
            (first, best), (second, other) = ranked[:2]
            apart = first.low > second.high if measured.more_is_better else first.high < second.low
            found.append((n_examples, best, other, apart))
    return found


def pivot(measured: Measured) -> tuple[list[str], list[list[str]]]:
    """Return (columns, rows): a row for each learner and number of gradient steps, a column for each number of
    examples.
    """
    examples = sorted({one.n_examples for curve in measured.curves for one in curve.points})
    columns = ["learner", "gradient steps", *(f"K = {n}" for n in examples)]
    rows = []
    for curve in measured.curves:
        for points in _rows(curve):
            steps = sorted({one.n_steps for one in points.values()})
            spelled = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else str(steps[0])
            cells = [_spelled(points[n]) if n in points else "" for n in examples]
            rows.append([curve.learner, spelled if curve.kind == "weights" else "", *cells])
    return columns, rows


def _spelled(one: Point) -> str:
    """Return mean and half its interval, in three decimals, or four where the mean is small."""
    digits = 4 if 0 < one.mean < 0.01 else 3
    half = max(one.high - one.mean, one.mean - one.low)  # that of a share may be cut off at 0 or 1 on one side
    return f"{one.mean:.{digits}f} ± {half:.{digits}f}"


def _rows(curve: Curve) -> Iterator[dict[int, Point]]:
    """Yield points by number of examples: all in one row where each number has a single one, else a row a number of
    steps.
    """
    if curve.points and len(curve.points) == len({one.n_examples for one in curve.points}):
        yield {one.n_examples: one for one in curve.points}
        return
    for n_steps in dict.fromkeys(one.n_steps for one in curve.points):
        yield {one.n_examples: one for one in curve.points if one.n_steps == n_steps}


def markdown_tables(results: Sequence[Measured]) -> str:
    """Return what a page of the documentation shows of results: a table for each sort of tasks."""
    parts = []
    for (tasks, quantity), group in grouped(results).items():
        columns, rows = pivot(merge(group))
        lines = [columns, ["---"] * len(columns), *rows]
        parts.append("\n".join([f"{tasks}, {quantity}:", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def _winners_table(measured: Measured) -> str:
    rows = [(str(n), best, other, "yes" if apart else "no: they touch") for n, best, other, apart in winners(measured)]
    return plain_table(rows, ("examples", "best learner", "next", "intervals apart"))


def _points_table(measured: Measured) -> str:
    rows = [
        (
            curve.learner,
            KIND_WORDS[curve.kind],
            str(one.n_examples),
            str(one.n_steps),
            "" if one.flops is None else f"{one.flops:.3g}",
            f"{one.mean:.3f}",
            f"{one.low:.3f} to {one.high:.3f}",
            str(one.n),
        )
        for curve in measured.curves
        for one in curve.points
    ]
    head = ("learner", "learns", "examples", "gradient steps", "FLOPs a task", measured.quantity, "95% interval", "n")
    return f"<details><summary>every point, with its FLOPs</summary>{plain_table(rows, head)}</details>"


def _settings(measured: Measured) -> str:
    """Return what made a result, folded away."""
    outer = [
        f"{curve.learner}: outer loop of {curve.training_flops:.3g} FLOPs"
        for curve in measured.curves
        if curve.training_flops is not None
    ]
    text = json.dumps(measured.about, indent=1, ensure_ascii=False)
    names = ", ".join(curve.learner for curve in measured.curves if curve.kind in LEARNED)
    words = f"<p>{escape('; '.join(outer))}</p>" if outer else ""
    return f"{words}<details><summary>settings: {escape(names)}</summary><pre>{escape(text)}</pre></details>"
