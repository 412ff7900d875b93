"""Figures that can be read: labels apart, legends beside the data, names as they are."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from fewshot.evaluate.reports.figures import MAX_LABEL, Line, lines_svg, loss_svg

SVG = "{http://www.w3.org/2000/svg}"


def draw(lines: list[Line], **fields) -> str:
    return lines_svg(lines, **{"name": "figure", "x_label": "x", "y_label": "y", **fields})


def line(x, label: str = "model", y=None) -> Line:
    return Line(label=label, x=x, y=y or [0.5] * len(x))


def texts(svg: str) -> list[tuple[str, float, float]]:
    """(text, x, y) of every label, in points from the top left."""
    found = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        place = re.search(r"translate\(([\d.]+) ([\d.]+)\)", element.get("transform", "")) or re.search(
            r"rotate\(\S+ ([\d.]+) ([\d.]+)\)", element.get("transform", "")
        )
        x, y = (place[1], place[2]) if place else (element.get("x"), element.get("y"))
        found.append((element.text or "", float(x or 0), float(y or 0)))
    return found


PLACES = {
    "near sizes": ("sizes", [1.20e6, 1.25e6, 1.3e6, 1.5e6, 3e7, 3.1e7, 1e9]),
    "many shots": ("shots", [0.0, *range(1, 33)]),
    "shots far apart": ("shots", [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 100.0]),
    "one place": ("sizes", [1e6]),
    "doublings": ("doublings", [1.0, 1000.0, 2048.0]),
    "two sizes that are almost one": ("sizes", [1e6, 1.0001e6]),
}


@pytest.mark.parametrize(("scale", "places"), PLACES.values(), ids=PLACES)
def test_labels_of_a_logarithmic_axis_do_not_overlap(scale, places):
    svg = draw([line(places)], scale=scale)
    axis = [one for one in texts(svg) if re.fullmatch(r"[\d.]+[kMB]?", one[0])]
    bottom = max(y for _, _, y in axis)
    ticks = sorted((x, text) for text, x, y in axis if abs(y - bottom) < 1)
    assert ticks
    for (x, text), (next_x, next_text) in itertools.pairwise(ticks):
        assert next_x - x > 2.7 * (len(text) + len(next_text)), (text, next_text)


@pytest.mark.parametrize("n_lines", [2, 5, 9])
def test_the_legend_lies_above_the_axes(n_lines):
    svg = draw([line([1, 2], f"a model of a long name, number {i}") for i in range(n_lines)], chance=0.2)
    found = texts(svg)
    legend = [y for text, _, y in found if text.startswith("a model") or text == "chance"]
    assert len(legend) == n_lines + 1
    path = re.search(r'id="figure-patch_2">\s*<path d="([^"]+)"', svg)
    assert path is not None
    top = min(float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path[1]))
    assert max(legend) < top


LABELS = ["_hidden", "$x$", r"$\frac{1}{0$", "a$b", "__", "名前", "a\nb", "kl_novel", "%s {0}"]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_shown_as_it_is(label):
    svg = draw([line([1, 2], label), line([1, 2], "other")], x_label=label, y_label=label)
    shown = [text.strip().replace(" ", "") for text, _, _ in texts(svg)]
    assert shown.count(re.sub(r"\s", "", label)) == 3


def test_a_very_long_label_is_cut():
    svg = draw([line([1, 2], "x" * 5000), line([1, 2], "other")])
    assert max(len(text) for text, _, _ in texts(svg)) == MAX_LABEL


def test_losses_that_are_not_finite_are_left_out():
    rows = [{"tokens": i, "loss": loss} for i, loss in enumerate((2.0, float("nan"), float("inf"), 1.5))]
    assert loss_svg(rows) == loss_svg([rows[0], rows[3]])
    assert "<svg" in loss_svg(rows[1:2])
