"""Line charts as SVG elements for a page. In: lines of numbers and their names. Out: text, in the page's ink and font.

Knows nothing of results, runs or tasks: the caller says what the lines are and how each of them looks.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

INK = "#010203"  # stands for the page's own text colour, light or dark, until the picture is put into the page
# They read well on white and on black
BLUE, ORANGE, GREEN, PURPLE, RED = "#3b82c4", "#d9822b", "#3f9b6c", "#9b6bc4", "#d0584a"
TEAL, BROWN, GREY, PINK, OLIVE = "#2b9dab", "#a07850", "#808a99", "#cf5fa0", "#8f9a2b"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, TEAL, BROWN, OLIVE, GREY, PINK)
MARKERS = "osD^vPX*"
MAX_LABEL = 48  # letters: what fits across the narrowest chart
LETTER_POINTS = 6.0  # of a label's letter, about
MOST_MARKERS = 30  # points of a line that all get a marker; of more, only some do

Scale = Literal["linear", "shots", "doublings", "decades", "sizes"]
Fill = Literal["full", "none", "left", "bottom", "right", "top"]
# Lines of one style are told apart by the fill of their markers, and by dashes: marker fills alone are too small to see
FILL_DASHES: Mapping[Fill, str | tuple[int, tuple[float, ...]]] = {
    "full": "-",
    "none": (0, (6, 2)),
    "left": (0, (4, 1.5, 1, 1.5)),
    "bottom": (0, (1.5, 1.5)),
    "right": (0, (6, 1.5, 1, 1.5, 1, 1.5)),
    "top": (0, (10, 3)),
}
FILLS: tuple[Fill, ...] = tuple(FILL_DASHES)


@dataclass(frozen=True)
class Style:
    """How the lines of one name look, in every figure of a page."""

    colour: str
    marker: str = ""
    dash: str = "-"


ALL_STYLES = tuple(  # all colours first, then the same colours with other markers
    Style(colour, MARKERS[(i + turn) % len(MARKERS)])
    for turn in range(len(MARKERS))
    for i, colour in enumerate(COLOURS)
)


class Styles:
    """Gives each name on a page a style of its own, which it keeps in all figures.

    >>> styles = Styles({"chance": Style(GREY, dash=":")})
    >>> styles.of("small") == styles.of("small") != styles.of("large")
    True
    """

    def __init__(self, known: Mapping[str, Style] | None = None) -> None:
        self._styles = dict(known or {})

    def of(self, name: str) -> Style:
        """Return the style of that name; one that comes for the first time gets the next style that is free."""
        if name not in self._styles:
            in_use = {(style.colour, style.marker) for style in self._styles.values()}
            free = (style for style in ALL_STYLES if (style.colour, style.marker) not in in_use)
            self._styles[name] = next(free, ALL_STYLES[len(self._styles) % len(ALL_STYLES)])
        return self._styles[name]

    def share(self, name: str, other: str) -> None:
        """Let `name` look as `other` does, unless it has a style already."""
        self._styles.setdefault(name, self.of(other))


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points of one line, from left to right, with their intervals where they have any."""

    label: str  # "": not in the legend
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: Style = ALL_STYLES[0]
    fill: Fill = "full"  # of its markers: tells lines of one style apart


def lines_svg(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: str,
    y_label: str,
    scale: Scale = "linear",
    log_y: bool = False,
    share: bool = False,
    chance: float | None = None,
    top: float | None = None,
    width: float = 4.6,
) -> str:
    """Return a chart of lines with their intervals.

    `name` keeps the ids in it apart from those of other charts on a page. What lies above `top` is cut off; of a
    line that lies there as a whole the legend says so.
    With `log_y` the y axis is logarithmic, and all values are above 0.
    """
    figure, axes = new_axes(width=width)
    bottom, highest = _extent(lines)
    top = None if top is None or not bottom < top < highest else top
    for line in lines:
        _draw(axes, line if top is None or min(line.y) < top else replace(line, label=f"{line.label} (higher)"))
    if chance is not None:
        axes.axhline(chance, color=INK, linestyle=":", linewidth=1.2, label="chance")
    _set_scale(axes, scale, sorted({x for line in lines for x in line.x}), width)
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_minor_locator(NullLocator())
    if share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))  # as in the tables
    if top is not None:
        axes.set_ylim(bottom - 0.05 * (top - bottom), top)  # the margin of what is seen
    axes.set_xlabel(as_text(x_label))
    axes.set_ylabel(as_text(y_label))
    return to_svg(figure, axes, name)


def _extent(lines: Sequence[Line]) -> tuple[float, float]:
    """Return the lowest and the highest value of all lines, with their intervals."""
    values = [y for line in lines for y in (*line.y, *line.low, *line.high)]
    return min(values, default=0.0), max(values, default=0.0)


def _draw(axes: Axes, line: Line) -> None:
    """Draw a line and the band of its intervals."""
    style = line.style
    if line.low:
        axes.fill_between(line.x, line.low, line.high, color=style.colour, alpha=0.18, linewidth=0)
    dash = FILL_DASHES[line.fill] if style.dash == "-" else style.dash
    (drawn,) = axes.plot(line.x, line.y, color=style.colour, linestyle=dash, linewidth=1.7)
    drawn.set(marker=style.marker, markersize=5, fillstyle=line.fill, markerfacecoloralt="none")
    if len(line.x) > MOST_MARKERS:
        drawn.set_markevery(0.12)  # of the diagonal
    if line.label:
        drawn.set_label(as_text(line.label))


def as_text(label: str) -> str:
    """Return the label so that it is shown as it is: to matplotlib a $ begins a formula, and a leading _ hides a line.

    Of a very long label the beginning is shown.
    """
    short = label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"
    plain = "".join(letter if letter.isprintable() else " " for letter in short)
    return (" " if plain.startswith("_") else "") + plain.replace("$", r"\$")


def _set_scale(axes: Axes, scale: Scale, places: Sequence[float], width: float) -> None:
    """Set the scale of the x axis, with ticks at the places themselves, or at powers of two, unless it is linear."""
    if scale == "linear":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 2k, 1.5M: no power of ten in a corner
        return
    if scale == "decades":
        axes.set_xscale("log", base=10)
        short = bool(places) and places[-1] < 10 * places[0]  # then no two powers of ten are on the axis
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,), numticks=6))
        tiny = bool(places) and places[0] < 1e-3
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0e}") if tiny else EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    if scale == "shots":  # zero has a place, then each doubling takes one step
        axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    else:
        axes.set_xscale("log", base=2)
    if scale == "doublings" and places:
        places = [2.0**power for power in range(math.floor(math.log2(places[0])), math.ceil(math.log2(places[-1])) + 1)]
    shorten = EngFormatter(sep="")  # three digits: 125M, 1.32B (not G)
    labels = [
        shorten(float(f"{place:.3g}")).replace("G", "B") if scale == "sizes" else f"{place:g}" for place in places
    ]
    legible = _that_stand_apart(axes, places, labels, width)
    axes.xaxis.set_major_locator(FixedLocator([places[i] for i in legible]))
    axes.xaxis.set_major_formatter(FixedFormatter([labels[i] for i in legible]))
    axes.xaxis.set_minor_locator(NullLocator())


def _that_stand_apart(axes: Axes, places: Sequence[float], labels: Sequence[str], width: float) -> list[int]:
    """Return the indices of labels that do not overlap, from left to right; the last label is among them."""
    at = [float(axes.transScale.transform((place, 1.0))[0]) for place in places]
    points = 72 * (width - 1.0) / max(at[-1] - at[0], 1e-9) if at else 0.0  # a unit of the axis on paper, about
    halves = [LETTER_POINTS * (len(label) + 1) / 2 for label in labels]
    legible: list[int] = []
    for i in reversed(range(len(at))):
        if not legible or points * (at[legible[-1]] - at[i]) >= halves[i] + halves[legible[-1]]:
            legible.append(i)
    return legible[::-1]


def new_axes(*, width: float, height: float = 3.1) -> tuple[Figure, Axes]:
    """Return an empty figure of that size in inches, with its axes, both in ink."""
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
    return re.sub(r'(id="|href="#|url\(#)', lambda match: f"{match[1]}{prefix}-", svg)


def as_id(name: str) -> str:
    """Return the name in letters, digits, - and _, as part of an id; different names give different ids."""
    plain = name.replace(" ", "-")
    if re.fullmatch(r"[A-Za-z0-9_-]+", plain):
        return plain
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', plain)[:60]}-{digest}"


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend above the axes, where it lies on no line; the figure grows by the legend's rows."""
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
