"""Draw patterns: a schedule and a length go in, text or a picture comes out. Refuses to know tensors and devices."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from fewshot.base.files import written_whole
from fewshot.patterns.layout import HEADS, block_counts, density, layers_until_heard, mean_keys_per_query
from fewshot.patterns.pattern import AtHead, Dense, Pattern
from fewshot.patterns.schedule import Schedule

MAX_REACH = 2048  # positions for which it is counted how far information travels: seconds at this length
_FUTURE, _NONE, _SOME, _ALL = range(4)
_SIGNS = " .+#"
_COLOURS = ("#ffffff", "#e4e7eb", "#8fb3d9", "#1f4e8c")
_WORDS = ("future", "not read", "partly read", "read")


class _Panel(NamedTuple):
    title: str
    pattern: Pattern


def to_text(schedule: Schedule, n: int, max_cells: int = 48) -> str:
    """Return one grid of characters for each distinct layer and head: rows are queries, columns are keys.

    Longer texts than `max_cells` are drawn with several positions to a character.
    """
    side = _side(n, max_cells)
    cell = "one position" if side == 1 else f"{side} x {side} positions"
    signs = [f"'{sign}' {word}" for sign, word in zip(_SIGNS, _WORDS, strict=True) if side > 1 or sign != "+"]
    lines = [f"{schedule}, {n} positions; rows: queries, columns: keys; a character is {cell}", ", ".join(signs)]
    for title, pattern in _panels(schedule):
        lines += ["", f"{title}: {pattern} ({_figures(pattern, n)})"]
        lines += ["".join(_SIGNS[cell] for cell in row).rstrip() for row in _cells(pattern, n, side)]
    if n <= MAX_REACH:
        lines += ["", _reach_in_words(layers_until_heard(schedule, n))]
    return "\n".join(lines) + "\n"


def to_png(schedule: Schedule, n: int, path: Path, max_cells: int = 256) -> None:
    """Write a picture with one panel for each distinct layer and head, and one of how far information travels.

    Needs matplotlib, no display. The last panel is left out above `MAX_REACH` positions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and only pictures need it
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    side, panels = _side(n, max_cells), _panels(schedule)
    n_panels = len(panels) + (n <= MAX_REACH)
    n_columns = min(n_panels, 4)
    n_rows = -(-n_panels // n_columns)
    figure = Figure(figsize=(max(4.2 * n_columns, 5.5), 4.5 * n_rows + 0.7), layout="constrained")
    figure.suptitle(textwrap.fill(f"{schedule}, {n} positions", 44 * n_columns), fontsize=12)
    for number, (title, pattern) in enumerate(panels, start=1):
        axes = figure.add_subplot(n_rows, n_columns, number)
        cells = _cells(pattern, n, side)
        end = len(cells) * side - 0.5  # the last cell may reach beyond n
        axes.imshow(
            cells,
            cmap=ListedColormap(_COLOURS),
            vmin=_FUTURE,
            vmax=_ALL,
            interpolation="nearest",
            extent=(-0.5, end, end, -0.5),
        )
        axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
        name = textwrap.fill(str(pattern), 40)
        axes.set_title(f"{title}\n{name}\n{_figures(pattern, n)}", fontsize=10)
        axes.set_xlabel("key position")
        axes.set_ylabel("query position")
    if n <= MAX_REACH:
        _draw_reach(figure.add_subplot(n_rows, n_columns, n_panels), layers_until_heard(schedule, n))
    labels = [
        (colour, word) for colour, word in zip(_COLOURS, _WORDS, strict=True) if side > 1 or word != "partly read"
    ]
    patches = [Patch(facecolor=colour, edgecolor="#888888", label=word) for colour, word in labels]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    with written_whole(path) as partial:
        FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=150)


def _draw_reach(axes: Any, layers: Int[np.ndarray, "n n"]) -> None:
    """Draw after how many layers each query has heard of each key; what it never hears of stays white."""
    from matplotlib.ticker import MaxNLocator

    heard = np.ma.masked_less(layers, 0)
    image = axes.imshow(heard, cmap="viridis_r", vmin=0, vmax=max(1, int(layers.max())), interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="layers", ticks=MaxNLocator(integer=True))
    axes.set_title(textwrap.fill(_reach_in_words(layers), 40), fontsize=10)
    axes.set_xlabel("key position")
    axes.set_ylabel("query position")


def _reach_in_words(layers: Int[np.ndarray, "n n"]) -> str:
    if (layers[np.tri(len(layers), dtype=bool)] < 0).any():
        return "some positions never depend on some earlier ones, however many layers there are"
    n = int(layers.max())
    return f"every position depends on every earlier one after {n} layer{'s' * (n != 1)}"


def _figures(pattern: Pattern, n: int) -> str:
    return f"{density(pattern, n):.1%} of the causal pairs, {mean_keys_per_query(pattern, n):.3g} keys per query"


def _panels(schedule: Schedule) -> list[_Panel]:
    """Return each distinct pattern of a layer and head once, with the layers and heads that use it."""
    n_layers = len(schedule.patterns)
    panels = []
    for layer_pattern in dict.fromkeys(schedule.patterns):
        layers = [i for i, pattern in enumerate(schedule.patterns) if pattern == layer_pattern]
        kinds = layer_pattern.for_heads(HEADS)
        repeated = not any(isinstance(kind, AtHead) for kind in kinds)
        for pattern in dict.fromkeys(kinds):
            heads = [h for h, other in enumerate(kinds) if other == pattern]
            title = _which("layer", layers, n_layers)
            if layer_pattern.needs_heads:
                title += ", " + _which("head", heads, len(kinds), repeated=repeated)
            panels.append(_Panel(title, pattern))
    return panels


def _which(noun: str, numbers: list[int], period: int, *, repeated: bool = True) -> str:
    """Return a text such as `every layer`, `layer 1 of every 2`, `heads 0, 2 of the first 4`; counted from 0."""
    if repeated and len(numbers) == period:
        return f"every {noun}"
    of = f"of every {period}" if repeated else f"of the first {period}"
    return f"{noun}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} {of}"


def _side(n: int, max_cells: int) -> int:
    """Return how many positions a cell is wide, so that at most `max_cells` cells show n positions."""
    return -(-n // max_cells)


def _cells(pattern: Pattern, n: int, side: int) -> Int[np.ndarray, "N N"]:
    """Return how much of each cell is read: future, none, some or all of its causal pairs."""
    causal, allowed = block_counts(Dense(), n, side), block_counts(pattern, n, side)
    return np.select([causal == 0, allowed == 0, allowed < causal], [_FUTURE, _NONE, _SOME], _ALL)
