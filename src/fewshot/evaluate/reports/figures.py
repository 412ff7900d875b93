"""Figures as SVG elements for a page. In: results and rows of numbers. Out: text, in the page's own ink and font.

One measure against K, training step or model size; the gain from demonstrations against size; loss against tokens and
against position.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FixedFormatter,
    FixedLocator,
    LogLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from fewshot.evaluate.compare import Gap
from fewshot.evaluate.result import Result
from fewshot.evaluate.scoring.loss_by_position import PositionLoss

INK = "#010203"  # stands for the page's own text colour, light or dark, until the picture is put into the page
# They read well on white and on black
MODEL, SECOND = "#3b82c4", "#d9822b"
MAX_LABEL = 60  # letters
LETTER_POINTS = 6.0  # of a label's letter, about
COLOURS = (MODEL, SECOND, "#3f9b6c", "#9b6bc4", "#d0584a", "#2b9dab", "#a07850", "#808a99")

Scale = Literal["linear", "shots", "doublings", "decades", "sizes"]
Against = Literal["shots", "step", "size"]
AXES: Mapping[Against, tuple[str, Scale]] = {
    "shots": ("demonstrations in the prompt (K)", "shots"),
    "step": ("training step", "linear"),
    "size": ("parameters", "sizes"),
}
Points = Sequence[tuple[float, Result]]  # where on the axis, and what was measured there
Metrics = Sequence[Mapping[str, Any]]  # rows of a run's metrics.jsonl


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points of one line, from left to right, with their intervals where they have any."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: str = MODEL
    style: str = "-"
    marker: str = "o"


def lines_svg(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: str,
    y_label: str,
    scale: Scale = "linear",
    share: bool = False,
    chance: float | None = None,
    top: float | None = None,
    width: float = 4.6,
) -> str:
    """Return lines with their intervals in one figure; `name` keeps its ids apart from those of other figures on a
    page.

    What lies above `top` is cut off.
    """
    figure, axes = new_axes(width=width)
    for line in lines:
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.18, linewidth=0)
        (drawn,) = axes.plot(line.x, line.y, color=line.colour, label=as_text(line.label), linewidth=1.7, markersize=4)
        drawn.set(linestyle=line.style, marker=line.marker)
    if chance is not None:
        axes.axhline(chance, color=INK, linestyle=":", linewidth=1.2, label="chance")
    _set_scale(axes, scale, sorted({x for line in lines for x in line.x}), width)
    if share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))  # as in the tables
    if top is not None:
        bottom = min((y for line in lines for y in (*line.y, *line.low)), default=top)
        if bottom < top < axes.get_ylim()[1]:
            axes.set_ylim(bottom - 0.05 * (top - bottom), top)  # the margin of what is seen
    axes.set_xlabel(as_text(x_label))
    axes.set_ylabel(as_text(y_label))
    return to_svg(figure, axes, name)


def as_text(label: str) -> str:
    """Return a label that is shown as it is: to matplotlib a $ begins a formula, and a leading _ hides a line.

    Of a very long one the beginning is shown.
    """
    short = label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"
    plain = "".join(letter if letter.isprintable() else " " for letter in short)
    return (" " if plain.startswith("_") else "") + plain.replace("$", r"\$")


def _set_scale(axes: Axes, scale: Scale, places: Sequence[float], width: float) -> None:
    """The axis of x, with ticks at the places themselves, or at powers of two, unless it is linear."""
    if scale == "linear":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 2k, 1.5M: no power of ten in a corner
        return
    if scale == "decades":
        axes.set_xscale("log", base=10)
        within_one = bool(places) and places[-1] < 10 * places[0]  # then no two powers of ten are on the axis
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if within_one else (1,), numticks=6))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    if scale == "shots":  # zero has a place, then each doubling takes one step
        axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    else:
        axes.set_xscale("log", base=2)
    if scale == "doublings" and places:
        places = [2.0**power for power in range(math.floor(math.log2(places[0])), math.ceil(math.log2(places[-1])) + 1)]
    short = EngFormatter(sep="")  # three digits: 125M, 1.32B (not G)
    labels = [short(float(f"{place:.3g}")).replace("G", "B") if scale == "sizes" else f"{place:g}" for place in places]
    kept = _that_stand_apart(axes, places, labels, width)
    axes.xaxis.set_major_locator(FixedLocator([places[i] for i in kept]))
    axes.xaxis.set_major_formatter(FixedFormatter([labels[i] for i in kept]))
    axes.xaxis.set_minor_locator(NullLocator())


def _that_stand_apart(axes: Axes, places: Sequence[float], labels: Sequence[str], width: float) -> list[int]:
    """Return which labels can be read beside each other, from left to right; the last is one of them."""
    at = [float(axes.transScale.transform((place, 1.0))[0]) for place in places]
    points = 72 * (width - 1.0) / max(at[-1] - at[0], 1e-9) if at else 0.0  # a unit of the axis on paper, about
    halves = [LETTER_POINTS * (len(label) + 1) / 2 for label in labels]
    kept: list[int] = []
    for i in reversed(range(len(at))):
        if not kept or points * (at[kept[-1]] - at[i]) >= halves[i] + halves[kept[-1]]:
            kept.append(i)
    return kept[::-1]


def measure_svg(lines: Mapping[str, Points], against: Against) -> str:
    """Return one measure of one task, a line of points by name, with chance (dotted).

    A single line against K has the ideal learner (dashed) beside it, where it is known.
    """
    drawn = [_measured(name, points, COLOURS[i % len(COLOURS)]) for i, (name, points) in enumerate(lines.items())]
    one = next(result for points in lines.values() for _, result in points)
    if against == "shots" and len(lines) == 1:
        drawn += _ideal(next(iter(lines.values())))
    x_label, scale = AXES[against]
    return lines_svg(
        drawn,
        name=f"{against}-{one.task}-{one.protocol}-{one.metric}-{one.question_set}",
        x_label=x_label,
        y_label=one.metric.replace("_", " "),
        scale=scale,
        share=one.share,
        chance=one.chance,
    )


def _measured(label: str, points: Points, colour: str) -> Line:
    """Return a line through the points that have a value."""
    done = [(x, one) for x, one in sorted(points, key=lambda point: point[0]) if one.value is not None]
    values, low, high = ([getattr(one, name) for _, one in done] for name in ("value", "low", "high"))
    return Line(label=label, x=[x for x, _ in done], y=values, low=low, high=high, colour=colour)


def _ideal(points: Points) -> list[Line]:
    done = [(x, one) for x, one in sorted(points, key=lambda point: point[0]) if one.value is not None]
    ideal = [one.ideal for _, one in done if one.ideal is not None]
    if len(ideal) < len(done):
        return []
    return [Line(label="ideal learner", x=[x for x, _ in done], y=ideal, colour=SECOND, style="--", marker="")]


def gaps_svg(lines: Mapping[str, Sequence[tuple[float, Gap]]], name: str, y_label: str) -> str:
    """Return what demonstrations add, a line of (parameters, gap) by task."""
    drawn = [
        Line(
            label=task,
            x=[x for x, _ in points],
            y=[one.value for _, one in points],
            low=[one.low for _, one in points],
            high=[one.high for _, one in points],
            colour=COLOURS[i % len(COLOURS)],
        )
        for i, (task, points) in enumerate(lines.items())
    ]
    return lines_svg(drawn, name=name, x_label="parameters", y_label=y_label, scale="sizes", width=8.0)


def loss_svg(metrics: Metrics) -> str:
    """Return training and validation loss of one run against tokens."""
    lines = []
    for name, label, colour, marker in (("loss", "training", MODEL, ""), ("val_loss", "validation", SECOND, "o")):
        tokens, losses = metric_column(metrics, name)
        if tokens:
            lines.append(Line(label=label, x=tokens, y=losses, colour=colour, marker=marker))
    return _losses(lines, "loss")


def losses_svg(runs: Mapping[str, Metrics]) -> str:
    """Return loss of several runs, by name, against tokens: on validation text where it was measured there."""
    lines = []
    for number, (run, metrics) in enumerate(runs.items()):
        column = "val_loss" if metric_column(metrics, "val_loss")[0] else "loss"
        tokens, losses = metric_column(metrics, column)
        label = run if column == "val_loss" else f"{run} (training text)"
        lines.append(Line(label=label, x=tokens, y=losses, colour=COLOURS[number % len(COLOURS)], marker=""))
    return _losses(lines, "losses")


def _losses(lines: Sequence[Line], name: str) -> str:
    return lines_svg(lines, name=name, x_label="tokens", y_label="loss (nats per token)", width=8.0)


def metric_column(metrics: Metrics, name: str) -> tuple[list[float], list[float]]:
    """Return (tokens, values) of the rows that hold `name`."""
    rows = [row for row in metrics if row.get(name) is not None and math.isfinite(row[name])]
    return [row["tokens"] for row in rows], [row[name] for row in rows]


def positions_svg(runs: Mapping[str, Sequence[PositionLoss]]) -> str:
    """Return loss against position in the context, of each model by name."""
    lines = [
        Line(
            label=name,
            x=[math.sqrt(one.first * one.last) for one in losses],  # the middle of the bin, on this axis
            y=[one.nats for one in losses],
            low=[one.low for one in losses],
            high=[one.high for one in losses],
            colour=COLOURS[number % len(COLOURS)],
        )
        for number, (name, losses) in enumerate(runs.items())
    ]
    return lines_svg(
        lines,
        name="positions",
        x_label="tokens read before",
        y_label="loss (nats per token)",
        scale="doublings",
        width=8.0,
    )


def new_axes(*, width: float, height: float = 3.1) -> tuple[Figure, Axes]:
    """Return an empty figure of so many inches, in ink."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")  # the page's own, light or dark
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=INK, alpha=0.12)
    return figure, axes


def to_svg(figure: Figure, axes: Axes, name: str) -> str:
    """Return the figure as an SVG element: no background, the page's ink and font, ids of its own."""
    _add_legend(figure, axes)
    target = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    salt = name.encode("utf-8", "replace").decode()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's font has it, or none here has
        figure.savefig(target, format="svg", facecolor="none", metadata=metadata)
    text = target.getvalue()
    svg = text[text.index("<svg") :].replace(INK, "currentColor")
    prefix = as_id(name)
    return re.sub(r'(id="|href="#|url\(#)', lambda found: f"{found[1]}{prefix}-", svg)


def as_id(name: str) -> str:
    """Return the name as part of an id: letters, digits, - and _; another name has another one."""
    plain = name.replace(" ", "-")
    if re.fullmatch(r"[A-Za-z0-9_-]+", plain):
        return plain
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', plain)[:60]}-{digest}"


def _add_legend(figure: Figure, axes: Axes) -> None:
    """What the lines are, above the axes, where it lies on none of them; the figure grows by its rows."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) < 2:
        return
    width, height = figure.get_size_inches()
    column = LETTER_POINTS * max(map(len, labels)) + 40  # points, with the line's sample
    n_columns = max(1, min(len(labels), int(72 * width / column)))
    n_rows = math.ceil(len(labels) / n_columns)
    figure.set_size_inches(width, height + 0.2 * n_rows)
    figure.legend(
        handles, labels, loc="outside upper center", ncols=n_columns, frameon=False, labelcolor=INK, fontsize=9
    )
