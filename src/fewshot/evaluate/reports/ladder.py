"""A ladder of runs as one page, with figure 3.1 of Brown et al. 2020. In: losses and a prediction. Out: a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot.report.chart import GREY, PINK, Line, Style, Styles, lines_svg
from fewshot.report.html import in_figure, plain_table, write_page

LAW, EXPECTED = Style(GREY, dash="--"), Style(PINK, "X")
COLUMNS = ("run", "parameters", "in the blocks", "tokens", "PF-days", "validation loss", "training time")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Losses in nats a token over PF-days or tokens."""

    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Band(Curve):
    """The same with intervals."""

    low: Sequence[float]
    high: Sequence[float]


def write_ladder(
    path: Path,
    *,
    title: str,
    summary: Sequence[tuple[str, str]],
    sizes: Sequence[Sequence[str]],
    over_compute: Mapping[str, Curve],
    law: tuple[str, Curve],
    expected: Band,
    expected_curve: Band,
    measured_curve: Curve,
) -> None:
    """Write the page: what was predicted and measured, loss against compute, the largest run's curve, the sizes.

    `sizes` has a row a run, as `COLUMNS`; of the prediction, `expected` is the end and `expected_curve` the whole.
    """
    parts = [
        plain_table(summary),
        "<h2>Loss against compute</h2>",
        in_figure(
            "validation loss against compute, embeddings left out, as in figure 3.1 of the GPT-3 paper; the crosses "
            "are the prediction for the largest run and its 95% interval, written before that run began",
            _over_compute(over_compute, law, expected),
        ),
        "<h2>The largest run</h2>",
        in_figure(
            "its curve as it was predicted, with 95% intervals, and as it came", _curve(expected_curve, measured_curve)
        ),
        "<h2>Sizes</h2>",
        plain_table(sizes, COLUMNS),
    ]
    write_page(path, title, parts)


def _over_compute(runs: Mapping[str, Curve], law: tuple[str, Curve], expected: Band) -> str:
    styles = Styles()
    lines = [
        Line(label=name, x=curve.x, y=curve.y, style=Style(styles.of(name).colour))
        for name, curve in runs.items()
        if curve.x
    ]
    lines.append(Line(label=law[0], x=law[1].x, y=law[1].y, style=LAW))
    upright = [expected.low[0], expected.y[0], expected.high[0]]
    lines.append(Line(label="predicted", x=[expected.x[0]] * 3, y=upright, style=EXPECTED))
    return lines_svg(
        lines,
        name="compute",
        x_label="PF-days",
        y_label="validation loss (nats per token)",
        scale="decades",
        log_y=True,
        width=8.0,
    )


def _curve(expected: Band, measured: Curve) -> str:
    lines = [Line(label="predicted", x=expected.x, y=expected.y, low=expected.low, high=expected.high, style=EXPECTED)]
    if measured.x:
        lines.append(Line(label="measured", x=measured.x, y=measured.y))
    return lines_svg(lines, name="largest", x_label="tokens", y_label="validation loss (nats per token)", width=8.0)
