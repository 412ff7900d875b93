from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from fewshot.base.errors import BadValue
from fewshot.patterns.draw import MAX_REACH, to_png, to_text
from fewshot.patterns.schedule import parse


def test_text_shows_each_distinct_layer_once_with_its_grid_and_density() -> None:
    assert to_text(parse("alternate(dense, banded(2), dense)"), 4) == (
        "alternate(dense, banded(2), dense), 4 positions; "
        "rows: queries, columns: keys; a character is one position\n"
        "' ' future, '.' not read, '#' read\n"
        "\n"
        "layers 0, 2 of every 3: dense (100.0% of the causal pairs, 2.5 keys per query)\n"
        "#\n"
        "##\n"
        "###\n"
        "####\n"
        "\n"
        "layer 1 of every 3: banded(2) (70.0% of the causal pairs, 1.75 keys per query)\n"
        "#\n"
        "##\n"
        ".##\n"
        "..##\n"
        "\n"
        "every position depends on every earlier one after 1 layer\n"
    )


def test_text_shows_each_distinct_head() -> None:
    text = to_text(parse("perhead(dense, banded(1), dense)"), 3)
    assert "every layer, heads 0, 2 of every 3: dense" in text
    assert "every layer, head 1 of every 3: banded(1) (50.0%" in text


def test_long_text_is_drawn_with_several_positions_to_a_character() -> None:
    lines = to_text(parse("banded(3)"), 10, max_cells=5).splitlines()
    assert lines[0].endswith("a character is 2 x 2 positions")
    assert "'+' partly read" in lines[1]
    assert lines[4:-2] == ["#", "+#", ".+#", "..+#", "...+#"]
    assert lines[-1] == "every position depends on every earlier one after 5 layers"


def test_what_never_arrives_is_said_and_long_texts_are_not_counted() -> None:
    assert to_text(parse("block(4)"), 8).endswith(
        "some positions never depend on some earlier ones, however many layers there are\n"
    )
    assert "heard" not in to_text(parse("banded(3)"), MAX_REACH + 1)


def test_picture_has_one_panel_for_each_layer_and_head(tmp_path: Path) -> None:
    widths = []
    for text in ("fixed(8, 2)", "alternate(dense, banded(9))", "alternate(perhead(dense, banded(9)), strided(4))"):
        to_png(parse(text), 50, tmp_path / "pattern.png")
        image = imread(tmp_path / "pattern.png")
        dark = (image[..., :3] < (0.2, 0.4, 0.6)).all(axis=-1) & (image[..., 2] > 0.5)
        assert dark.mean() > 0.02  # the colour of pairs that are read
        widths.append(image.shape[1])
    assert widths[0] < widths[1] < widths[2]


def test_drawing_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="at least 1 position"):
        to_text(parse("dense"), 0)
    with pytest.raises(BadValue, match="at least 1 position"):
        to_png(parse("dense"), 0, tmp_path / "pattern.png")
