"""Results as charts. In: results and rows of numbers. Out: SVG elements.

One metric against K, training step or model size; the gain from demonstrations against size; loss against tokens and
against position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fewshot.evaluate.compare import Gap
from fewshot.evaluate.result import Result
from fewshot.evaluate.scoring.loss_by_position import PositionLoss
from fewshot.report.chart import BLUE, FILLS, GREY, PINK, Line, Scale, Style, Styles, lines_svg

Against = Literal["shots", "step", "size"]
AXES: Mapping[Against, tuple[str, Scale]] = {
    "shots": ("demonstrations in the prompt (K)", "shots"),
    "step": ("training step", "linear"),
    "size": ("parameters", "sizes"),
}
MODEL = "model"  # the only one of a page
IDEAL = "ideal learner"
KNOWN = {MODEL: Style(BLUE, "o"), IDEAL: Style(PINK, dash="--"), "training text": Style(GREY)}

Points = Sequence[tuple[float, Result]]  # where on the axis, and what was measured there
Metrics = Sequence[Mapping[str, Any]]  # rows of a run's metrics.jsonl


def page_styles(names: Sequence[str] = ()) -> Styles:
    """Return the styles of a page: of those that many pages show, and of these names, in their order."""
    styles = Styles(KNOWN)
    for name in names:
        styles.of(name)
    return styles


def metric_svg(lines: Mapping[str, Points], against: Against, styles: Styles) -> str:
    """Return a chart of one metric of one task: a line of points by name, with chance (dotted).

    A single line against K has the ideal learner (dashed) beside it, where it is known. Lines that share a style (one
    model at several K) differ in how their markers are filled.
    """
    drawn: list[Line] = []
    for name, points in lines.items():
        style = styles.of(name)
        fill = FILLS[sum(line.style == style for line in drawn) % len(FILLS)]
        drawn.append(_metric_line(name, points, style, fill=fill))
    first = next(result for points in lines.values() for _, result in points)
    if against == "shots" and len(lines) == 1:
        drawn += _ideal(next(iter(lines.values())), styles.of(IDEAL))
    x_label, scale = AXES[against]
    return lines_svg(
        drawn,
        name=f"{against}-{first.task}-{first.protocol}-{first.metric}-{first.question_set}",
        x_label=x_label,
        y_label=first.metric.replace("_", " "),
        scale=scale,
        share=first.share,
        chance=first.chance,
    )


def _measured(points: Points) -> list[tuple[float, Result]]:
    """Return the points that have a value, from left to right."""
    return [(x, result) for x, result in sorted(points, key=lambda point: point[0]) if result.value is not None]


def _metric_line(label: str, points: Points, style: Style, **fields: Any) -> Line:
    """Return a line through the points that have a value."""
    measured = _measured(points)
    values, low, high = ([getattr(result, name) for _, result in measured] for name in ("value", "low", "high"))
    return Line(label=label, x=[x for x, _ in measured], y=values, low=low, high=high, style=style, **fields)


def _ideal(points: Points, style: Style) -> list[Line]:
    """Return the line of the ideal learner; none where its score is not known at every point."""
    measured = _measured(points)
    ideal = [result.ideal for _, result in measured if result.ideal is not None]
    if len(ideal) < len(measured):
        return []
    return [Line(label=IDEAL, x=[x for x, _ in measured], y=ideal, style=style)]


def gaps_svg(lines: Mapping[str, Sequence[tuple[float, Gap]]], name: str, y_label: str, styles: Styles) -> str:
    """Return a chart of what demonstrations add: a line of (parameters, gap) by task."""
    drawn = [
        Line(
            label=task,
            x=[x for x, _ in points],
            y=[gap.value for _, gap in points],
            low=[gap.low for _, gap in points],
            high=[gap.high for _, gap in points],
            style=styles.of(task),
        )
        for task, points in lines.items()
    ]
    return lines_svg(drawn, name=name, x_label="parameters", y_label=y_label, scale="sizes", width=8.0)


def loss_svg(metrics: Metrics) -> str:
    """Return a chart of one run's training and validation loss against tokens."""
    styles = page_styles()
    lines = []
    for name, label, style in (
        ("loss", "training text", styles.of("training text")),
        ("val_loss", "validation text", styles.of(MODEL)),
    ):
        tokens, losses = metric_column(metrics, name)
        if tokens:
            lines.append(Line(label=label, x=tokens, y=losses, style=style))
    return _losses(lines, "loss")


def losses_svg(runs: Mapping[str, Metrics], styles: Styles) -> str:
    """Return a chart of several runs' losses, by name, against tokens: on validation text where it was measured."""
    lines = []
    for run, metrics in runs.items():
        column = "val_loss" if metric_column(metrics, "val_loss")[0] else "loss"
        tokens, losses = metric_column(metrics, column)
        label = run if column == "val_loss" else f"{run} (training text)"
        lines.append(Line(label=label, x=tokens, y=losses, style=styles.of(run)))
    return _losses(lines, "losses")


def _losses(lines: Sequence[Line], name: str) -> str:
    return lines_svg(lines, name=name, x_label="tokens", y_label="loss (nats per token)", width=8.0)


def metric_column(metrics: Metrics, name: str) -> tuple[list[float], list[float]]:
    """Return (tokens, values) of the rows that hold a finite number under `name`."""
    rows = [row for row in metrics if row.get(name) is not None and math.isfinite(row[name])]
    return [row["tokens"] for row in rows], [row[name] for row in rows]


def positions_svg(losses_by_name: Mapping[str, Sequence[PositionLoss]], styles: Styles) -> str:
    """Return a chart of loss against position in the context, of each model by name."""
    lines = [
        Line(
            label=name,
            x=[math.sqrt(loss.first * loss.last) for loss in losses],  # the middle of the bin, on this axis
            y=[loss.nats for loss in losses],
            low=[loss.low for loss in losses],
            high=[loss.high for loss in losses],
            style=styles.of(name),
        )
        for name, losses in losses_by_name.items()
    ]
    return lines_svg(
        lines,
        name="positions",
        x_label="tokens read before",
        y_label="loss (nats per token)",
        scale="doublings",
        width=8.0,
    )
