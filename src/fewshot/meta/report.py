"""One page for learners in weights and in context. In: results. Out: HTML, and tables for other pages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fewshot.meta.curves import Measured, Point
from fewshot.meta.figures import Figure, figures
from fewshot.meta.merge import LEARNED, grouped, last_steps, merge, plain_name, rows_of
from fewshot.meta.names import learner_styles
from fewshot.report.html import in_figure, plain_table, side_by_side, write_page

KIND_WORDS = {
    "weights": "in weights (gradient steps)",
    "context": "in context (reading)",
    "baseline": "baseline",
    "bound": "best possible",
}
LOOPS = """<p>GPT-3's Figure 1.1 has two loops. In the <b>outer</b> one gradient descent on many tasks shapes the
weights before any of the tasks below is seen. In the <b>inner</b> one a new task is learned from a few of its examples:
by gradient steps on them (MAML and its relatives, fine-tuning), or by reading them as a prompt, with the weights at
rest. Every figure is measured on fresh tasks, which the outer loop did not draw; the <code>hidden_</code> families of
text have so few rules that there only examples and questions are fresh, and so it is with tasks called
<code>known</code>, from the pool that the outer loop drew from. Bands are 95% intervals.</p>"""


@dataclass(frozen=True)
class Section:
    """What a page shows of one sort of tasks and quantity."""

    tasks: str
    quantity: str
    parts: Sequence[Measured]  # the results it is made of
    merged: Measured
    figures: Sequence[Figure]


def sections(results: Sequence[Measured], taken: set[str] | None = None) -> Iterator[Section]:
    """Yield the sections of a page; a learner looks the same in all their figures.

    Names of figures are none of those in `taken`, to which they are added.
    """
    taken, styles, shared = set() if taken is None else taken, learner_styles(), set[str]()
    for (tasks, quantity), group in grouped(results).items():
        merged = merge(group)
        for learner in (curve.learner for curve in merged.curves):
            if plain_name(learner) not in shared | {learner}:  # of several that are told apart, the first
                styles.share(learner, plain_name(learner))
                shared.add(plain_name(learner))
        yield Section(tasks, quantity, group, merged, tuple(figures(merged, taken, styles)))


def write_report(path: Path, results: Sequence[Measured], *, title: str = "fewshot: learning to learn") -> None:
    """Write the page; results on the same tasks and quantity share their figures."""
    parts = [LOOPS]
    for section in sections(results):
        parts += [f"<h2>{escape(section.tasks)}: {escape(section.quantity)}</h2>"]
        parts += [side_by_side([in_figure(figure.caption, figure.svg) for figure in section.figures])]
        columns, rows = pivot(section.merged)
        rows = [[cell.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}") for cell in row] for row in rows]
        parts += [plain_table(rows, columns), _winners_table(section.merged), _points_table(section.merged)]
        parts += map(_settings, section.parts)
    write_page(path, title, parts)


def winners(measured: Measured) -> list[tuple[int, str, str, bool]]:
    """Return for each number of examples (it, the best learner, the next one, whether their intervals are apart)."""
    rows = []
    at = {curve.learner: last_steps(curve) for curve in measured.curves if curve.kind in LEARNED}
    for n_examples in sorted({n for points in at.values() for n in points}):
        ranked = sorted(
            ((points[n_examples], name) for name, points in at.items() if n_examples in points),
            key=lambda pair: pair[0].mean,
            reverse=measured.more_is_better,
        )
        if len(ranked) > 1:
            (first, best), (second, other) = ranked[:2]
            apart = first.low > second.high if measured.more_is_better else first.high < second.low
            rows.append((n_examples, best, other, apart))
    return rows


def pivot(measured: Measured) -> tuple[list[str], list[list[str]]]:
    """Return (columns, rows): a row for each learner and number of gradient steps, a column for each K."""
    examples = sorted({point.n_examples for curve in measured.curves for point in curve.points})
    columns = ["learner", "gradient steps", *(f"K = {n}" for n in examples)]
    rows = []
    for curve in measured.curves:
        for points in rows_of(curve):
            steps = sorted({point.n_steps for point in points.values()})
            spelled = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else str(steps[0])
            cells = [_spelled(points[n]) if n in points else "" for n in examples]
            rows.append([curve.learner, spelled if curve.kind == "weights" else "", *cells])
    return columns, rows


def _spelled(point: Point) -> str:
    """Return mean and half its interval, in three decimals, or four where the mean is small."""
    digits = 4 if 0 < point.mean < 0.01 else 3
    half = max(point.high - point.mean, point.mean - point.low)  # that of a share may be cut off at 0 or 1 on one side
    return f"{point.mean:.{digits}f} ± {half:.{digits}f}"


def markdown_tables(results: Sequence[Measured]) -> str:
    """Return results as Markdown for a page of the documentation: a table for each sort of tasks."""
    parts = []
    for (tasks, quantity), group in grouped(results).items():
        columns, rows = pivot(merge(group))
        lines = [columns, ["---"] * len(columns), *rows]
        parts.append("\n".join([f"{tasks}, {quantity}:", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def _winners_table(measured: Measured) -> str:
    """Return a table of the best learner for each number of examples."""
    rows = [(str(n), best, other, "yes" if apart else "no: they touch") for n, best, other, apart in winners(measured)]
    return plain_table(rows, ("examples", "best learner", "next", "intervals apart"))


def _points_table(measured: Measured) -> str:
    """Return a table of all points, folded away."""
    rows = [
        (
            curve.learner,
            KIND_WORDS[curve.kind],
            str(point.n_examples),
            str(point.n_steps),
            "" if point.flops is None else f"{point.flops:.3g}",
            f"{point.mean:.3f}",
            f"{point.low:.3f} to {point.high:.3f}",
            str(point.n),
        )
        for curve in measured.curves
        for point in curve.points
    ]
    head = ("learner", "learns", "examples", "gradient steps", "FLOPs a task", measured.quantity, "95% interval", "n")
    return f"<details><summary>every point, with its FLOPs</summary>{plain_table(rows, head)}</details>"


def _settings(measured: Measured) -> str:
    """Return the settings that made a result, folded away."""
    outer = [
        f"{curve.learner}: outer loop of {curve.training_flops:.3g} FLOPs"
        + ("" if curve.n_weights is None else f" over {curve.n_weights:,} weights")
        for curve in measured.curves
        if curve.training_flops is not None
    ]
    text = json.dumps(measured.about, indent=1, ensure_ascii=False)
    names = ", ".join(curve.learner for curve in measured.curves if curve.kind in LEARNED)
    words = f"<p>{escape('; '.join(outer))}</p>" if outer else ""
    return f"{words}<details><summary>settings: {escape(names)}</summary><pre>{escape(text)}</pre></details>"
