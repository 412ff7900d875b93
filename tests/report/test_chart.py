"""Figures that can be read: labels apart, legends beside the data, names as they are."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from fewshot.report.chart import (
    ALL_STYLES,
    FILLS,
    GREY,
    MAX_LABEL,
    MOST_MARKERS,
    Line,
    Scale,
    Style,
    Styles,
    as_id,
    lines_svg,
)

SVG = "{http://www.w3.org/2000/svg}"


def draw(lines: list[Line], **fields) -> str:
    return lines_svg(lines, **{"name": "figure", "x_label": "x", "y_label": "y", **fields})


def line(x, label: str = "model", y=None) -> Line:
    return Line(label=label, x=x, y=y or [0.5] * len(x))


def texts(svg: str) -> list[tuple[str, float, float]]:
    """(text, x, y) of every label, in points from the top left."""
    labels = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        place = re.search(r"translate\(([\d.]+) ([\d.]+)\)", element.get("transform", "")) or re.search(
            r"rotate\(\S+ ([\d.]+) ([\d.]+)\)", element.get("transform", "")
        )
        x, y = (place[1], place[2]) if place else (element.get("x"), element.get("y"))
        labels.append((element.text or "", float(x or 0), float(y or 0)))
    return labels


PLACES: dict[str, tuple[Scale, list[float]]] = {
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
    axis = [label for label in texts(svg) if re.fullmatch(r"[\d.]+[kMB]?", label[0])]
    bottom = max(y for _, _, y in axis)
    ticks = sorted((x, text) for text, x, y in axis if abs(y - bottom) < 1)
    assert ticks
    for (x, text), (next_x, next_text) in itertools.pairwise(ticks):
        assert next_x - x > 2.7 * (len(text) + len(next_text)), (text, next_text)


def top_of_axes(svg: str) -> float:
    """The upper edge of the plot, in points from the top."""
    path = re.search(r'id="figure-patch_2">\s*<path d="([^"]+)"', svg)
    assert path is not None
    return min(float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path[1]))


def legend_of(svg: str) -> str:
    return svg[svg.index('id="figure-legend_1"') :]


NAMES = {
    "two": ["a", "b"],
    "nine long ones": [f"a model of a long name, number {i}" for i in range(9)],
    "longest": [f"{i} {'a model ' * 6}"[:MAX_LABEL] for i in range(3)],
    "thirty": [f"model {i}" for i in range(30)],
}


@pytest.mark.parametrize("width", [4.6, 8.0])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_the_legend_lies_above_the_axes_and_so_on_no_data(names, width):
    svg = draw([line([1, 2], name, y=[0.0, 1e6]) for name in names], chance=0.2, width=width)
    heights = re.findall(r"translate\([\d.]+ ([\d.]+)\)|[ML] [\d.]+ ([\d.]+) ", legend_of(svg))
    assert legend_of(svg).count("<text") == len(names) + 1
    assert len(heights) > len(names)
    assert max(float(first or second) for first, second in heights) < top_of_axes(svg)


def test_one_line_alone_has_no_legend():
    assert 'id="figure-legend_1"' not in draw([line([1, 2])])


def test_each_name_has_one_style_and_no_two_names_have_the_same():
    styles = Styles({"known": Style(GREY)})
    names = [f"name {i}" for i in range(len(ALL_STYLES) - 1)]
    first = [styles.of(name) for name in names]
    assert [styles.of(name) for name in reversed(names)] == first[::-1]
    assert len({(style.colour, style.marker) for style in first}) == len(names)
    assert len({style.colour for style in first[:10]}) == 10
    assert styles.of("known") == Style(GREY)
    assert Styles().of("any") == first[0]
    assert [styles.of(name) for name in ("one too many", "another")]


def test_a_name_may_look_like_another_unless_it_has_a_style():
    styles = Styles()
    styles.share("run, K = 8", "run")
    assert styles.of("run, K = 8") == styles.of("run") == Styles().of("run")
    other = styles.of("other")
    styles.share("other", "run")
    assert styles.of("other") == other


def test_lines_of_one_style_differ_in_how_their_markers_are_filled():
    style = Style(GREY, "s")
    drawn = {fill: draw([Line(label="a", x=[1, 2], y=[1, 2], style=style, fill=fill)]) for fill in FILLS}
    assert len(set(drawn.values())) == len(FILLS)
    assert all(GREY in svg for svg in drawn.values())


def test_a_line_that_is_cut_off_as_a_whole_is_marked_in_the_legend():
    svg = draw([line([1, 2], "low", y=[0.0, 2.0]), line([1, 2], "high", y=[7.0, 8.0])], top=3.0)
    assert {"low", "high (higher)"} <= {text for text, _, _ in texts(svg)}
    assert "(higher)" not in draw([line([1, 2], "low", y=[0.0, 2.0]), line([1, 2], "high", y=[2.0, 8.0])], top=3.0)


def test_of_many_points_some_have_markers():
    def n_markers(n: int) -> int:
        return draw([line([float(i) for i in range(n)])]).count("<use xlink:href")

    few, many = n_markers(MOST_MARKERS), n_markers(30 * MOST_MARKERS)
    assert 3 < many < few


LABELS = ["_hidden", "$x$", r"$\frac{1}{0$", "a$b", "__", "名前", "a\nb", "kl_novel", "%s {0}"]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_shown_as_it_is(label):
    svg = draw([line([1, 2], label), line([1, 2], "other")], x_label=label, y_label=label)
    shown = [text.strip().replace(" ", "") for text, _, _ in texts(svg)]
    assert shown.count(re.sub(r"\s", "", label)) == 3


def test_a_very_long_label_is_cut():
    svg = draw([line([1, 2], "x" * 5000), line([1, 2], "other")])
    assert max(len(text) for text, _, _ in texts(svg)) == MAX_LABEL


def test_ids_of_different_names_differ():
    names = ["a b", "a.b", "a/b", "a\tb", "a:b", "a<b", 'a"b', "a_b", "é", "ü", "", " "]
    assert len({as_id(name) for name in names}) == len(names)
    assert as_id("loss-train_1") == "loss-train_1"  # a name that may be an id is one
