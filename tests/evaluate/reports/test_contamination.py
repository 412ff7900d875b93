from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from fewshot.evaluate.contamination import CleanDirtyScores, SubsetScore
from fewshot.evaluate.reports.contamination import contamination_svg


def row(task: str, clean_share: float, difference: float | None) -> CleanDirtyScores:
    score = SubsetScore(n=9, value=0.5, low=0.2, high=0.8)
    return CleanDirtyScores(
        task=task,
        metric="accuracy",
        share=True,
        shots=0,
        n_words=13,
        all=score,
        clean=score,
        dirty=score,
        clean_share=clean_share,
        relative_difference=difference,
    )


def points(svg: str) -> list[tuple[float, float]]:
    uses = re.findall(
        r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg.split("PathCollection_1")[1].split("matplotlib.axis")[0]
    )
    return [(float(x), float(y)) for x, y in uses]


def test_the_figure_places_each_score_by_its_clean_share_and_its_difference():
    rows = [row("drop", 0.07, -0.21), row("quac", 0.01, 0.2), row("story <cloze>", 1.0, 0.0), row("none", 0.0, None)]
    svg = contamination_svg(rows)
    texts = [one.text for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("text")]
    assert {"drop", "quac", "story <cloze>", "questions that are clean (%)"} <= set(texts)
    assert "none" not in texts
    (x_drop, y_drop), (x_quac, y_quac), (x_story, y_story) = points(svg)
    assert (x_drop - x_quac) / (x_story - x_quac) == pytest.approx(6 / 99, abs=1e-4)
    assert (y_drop - y_quac) / (y_story - y_quac) == pytest.approx(41 / 20, abs=1e-4)
    assert svg == contamination_svg(rows)
    assert "currentColor" in svg
    assert "#010203" not in svg


def test_of_many_points_those_far_from_no_difference_are_named_and_none_is_needed():
    svg = contamination_svg([row(f"task{i}", 0.9, i / 100) for i in range(20)])
    assert set(re.findall(r"task\d+", svg)) == {f"task{i}" for i in range(8, 20)}
    assert len(points(svg)) == 20
    assert "<svg" in contamination_svg([])
