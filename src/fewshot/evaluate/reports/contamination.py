"""The figure of contamination: how much of each task is clean, and what that does to its score. Source: figure 4.2."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.evaluate.contamination import CleanDirtyScores
from fewshot.report.chart import BLUE, INK, as_text, new_axes, to_svg

MAX_LABELS = 12  # points that are named: those furthest from no difference


def contamination_svg(rows: Sequence[CleanDirtyScores]) -> str:
    """Return a figure as SVG: how many questions of each row are clean, and how its clean score differs, in per cent.

    A row without a difference is left out. Source: figure 4.2.
    """
    drawn = [
        (100 * row.clean_share, 100 * row.relative_difference, row.task)
        for row in rows
        if row.relative_difference is not None
    ]
    figure, axes = new_axes(width=8.0, height=3.6)
    axes.axhline(0, color=INK, linestyle=":", linewidth=1.2)
    axes.scatter([x for x, _, _ in drawn], [y for _, y, _ in drawn], color=BLUE, s=22, alpha=0.8, linewidths=0)
    for x, y, task in sorted(drawn, key=lambda point: -abs(point[1]))[:MAX_LABELS]:
        side = "left" if x < 50 else "right"  # of the label's text: towards the middle of the figure
        aside = (5 if x < 50 else -5, 3)
        axes.annotate(as_text(task), (x, y), xytext=aside, textcoords="offset points", ha=side, color=INK, fontsize=8)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("questions that are clean (%)")
    axes.set_ylabel("clean-only score against all (%)")
    return to_svg(figure, axes, "contamination")
