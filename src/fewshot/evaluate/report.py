"""One run as one page. In: plain tables and results. Out: `report.html`, complete in itself: no script, no network."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedFormatter, FixedLocator, NullLocator

from fewshot.base.files import write_text
from fewshot.evaluate.run import Result

INK = "#010203"  # stands for the page's own text colour, light or dark, until the picture is put into the page
MODEL, SECOND = "#3b82c4", "#d9822b"  # read well on white and on black

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #667085; --line: #d9dee7; --back: #ffffff; --card: #f6f8fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #98a2b3; --line: #333c4a; --back: #14181f; --card: #1c222c; } }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1.2rem; color: var(--ink); background: var(--back);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; } h3 { font-size: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); }
.results td, .results th { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.results :is(td, th):nth-child(-n + 2) { text-align: left; }
th { color: var(--soft); font-weight: 600; } small, .soft { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
figure svg { width: 100%; height: auto; } figcaption { font-size: .9rem; color: var(--soft); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem; overflow-x: auto;
  white-space: pre-wrap; font-size: .85rem; }
pre b { color: #3b82c4; } pre b.wrong { color: #d0584a; }
"""


def write_report(
    path: Path,
    *,
    title: str,
    summary: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    results: Sequence[Result],
    samples: Sequence[tuple[str, str]],
) -> None:
    """Write the page: summary, loss curves, results with curves over K, samples (prompt, text), example prompts.

    `metrics` are rows of a run's metrics.jsonl (tokens, loss, val_loss; either loss may be absent); a part without
    content is left out.
    """
    parts = [f"<h1>{escape(title)}</h1>", _summary(summary)]
    if any(_numbers(metrics, name)[0] for name in ("loss", "val_loss")):
        parts.append(f"<h2>Training</h2>{_figure('loss in nats per token', loss_svg(metrics))}")
    if results:
        parts += ["<h2>In-context learning</h2>", _curves(results), _results(results)]
    if samples:
        parts.append("<h2>Samples</h2>" + "".join(_pre(prompt, text) for prompt, text in samples))
    parts += _prompts(results)
    body = "\n".join(parts)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n",
    )


def loss_svg(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss against tokens, as SVG."""
    figure, axes = _axes(width=8.0)
    for name, label, colour, marker in (
        ("loss", "training", MODEL, ""),
        ("val_loss", "validation", SECOND, "o"),
    ):
        tokens, losses = _numbers(metrics, name)
        if tokens:
            axes.plot(tokens, losses, color=colour, label=label, linewidth=1.6, marker=marker, markersize=4)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 2k, 1.5M: no power of ten in a corner
    axes.set_xlabel("tokens")
    axes.set_ylabel("loss (nats per token)")
    return _svg(figure, axes, "loss")


def shots_svg(results: Sequence[Result]) -> str:
    """One measure of one task against K, with its 95% interval, the ideal learner (dashed) and chance (dotted)."""
    done = sorted((one for one in results if one.value is not None), key=lambda one: one.shots)
    shots, first = [one.shots for one in done], done[0]
    figure, axes = _axes(width=4.6)
    low, high = _column(done, "low"), _column(done, "high")
    axes.fill_between(shots, low, high, color=MODEL, alpha=0.22, linewidth=0)
    axes.plot(shots, _column(done, "value"), color=MODEL, marker="o", markersize=4, linewidth=1.8, label="model")
    if all(one.ideal is not None for one in done):
        ideal = _column(done, "ideal")
        axes.plot(shots, ideal, color=SECOND, linestyle="--", linewidth=1.4, label="ideal learner")
    if first.chance is not None and first.metric == "accuracy":
        axes.axhline(first.chance, color=INK, linestyle=":", linewidth=1.2, label="chance")
    axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)  # zero has a place, then each doubling takes one step
    axes.xaxis.set_major_locator(FixedLocator(shots))
    axes.xaxis.set_major_formatter(FixedFormatter([str(k) for k in shots]))
    axes.xaxis.set_minor_locator(NullLocator())
    if first.metric == "accuracy":
        axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("demonstrations in the prompt (K)")
    axes.set_ylabel(first.metric)
    return _svg(figure, axes, f"{first.task}-{first.metric}")


def _axes(width: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=INK, alpha=0.12)
    return figure, axes


def _svg(figure: Figure, axes: Axes, name: str) -> str:
    """The figure as an SVG element: no background, the page's ink and font, ids of its own."""
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(
            target, format="svg", facecolor="none", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = target.getvalue()
    svg = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def _column(results: Sequence[Result], name: str) -> list[float]:
    return [getattr(one, name) for one in results]


def _numbers(metrics: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """(tokens, values) of the rows that hold `name`."""
    rows = [row for row in metrics if row.get(name) is not None]
    return [row["tokens"] for row in rows], [row[name] for row in rows]


def _by_measure(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """Results by (task, metric), in their order."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        groups.setdefault((one.task, one.metric), []).append(one)
    return groups


def _figure(caption: str, svg: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _curves(results: Sequence[Result]) -> str:
    figures = [
        _figure(f"{_title(group[0])}, {metric}", shots_svg(group))
        for (_, metric), group in _by_measure(results).items()
        if sum(one.value is not None for one in group) > 1  # one point is no curve; the table holds it
    ]
    return f'<div class="figures">{"".join(figures)}</div>'


def _results(results: Sequence[Result]) -> str:
    """The table of tasks by K."""
    shots = sorted({one.shots for one in results})
    head = "".join(f"<th>K = {k}</th>" for k in shots)
    rows = []
    for (_, metric), group in _by_measure(results).items():
        at = {one.shots: one for one in group}
        cells = "".join(f"<td>{_cell(at[k]) if k in at else ''}</td>" for k in shots)
        n, skipped = max(one.n for one in group), max(one.n_skipped for one in group)
        count = f"{n:,}" + (f" <small>({skipped:,} too long)</small>" if skipped else "")
        rows.append(f"<tr><td>{escape(_title(group[0]))}</td><td>{escape(metric)}</td>{cells}<td>{count}</td></tr>")
    return (
        f'<p class="soft">Each cell: value, 95% interval, and where fewer demonstrations fitted, how many.</p>'
        f'<div class="scroll"><table class="results"><tr><th>task</th><th>measure</th>{head}<th>questions</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _cell(one: Result) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "–"
    scale, digits = (100, 1) if one.metric == "accuracy" else (1, 2)
    value, low, high = (f"{scale * number:,.{digits}f}" for number in (one.value, one.low, one.high))
    fewer = f"<br><small>{one.shots_used:.1f} shots</small>" if one.shots_used < one.shots else ""
    return f"{value}<br><small>{low} to {high}</small>{fewer}"


def _summary(summary: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in summary.items()
    )
    return f'<div class="scroll"><table>{rows}</table></div>' if rows else ""


def _prompts(results: Sequence[Result]) -> list[str]:
    """Of every task the first kept prompt at the largest K, with the model's answer."""
    shown = {one.task: one for one in sorted(results, key=lambda one: one.shots) if one.samples}
    parts = ["<h2>Prompts as the model read them</h2>"] if shown else []
    for one in shown.values():
        sample = one.samples[0]
        note = f"expected {sample.expected.strip()!r}; {one.source}"
        parts.append(
            f"<h3>{escape(_title(one))}, K = {one.shots}</h3>{_pre(sample.prompt, sample.answer, sample.value > 0)}"
        )
        parts.append(f'<p class="soft">{escape(note)}</p>')
    return parts


def _pre(prompt: str, text: str, right: bool = True) -> str:
    """The prompt, and in bold what the model wrote."""
    return f"<pre>{escape(prompt)}<b{'' if right else ' class=wrong'}>{escape(text)}</b></pre>"


def _title(one: Result) -> str:
    return f"{one.task} ({one.paper_name})" if one.paper_name else one.task
