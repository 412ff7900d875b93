"""What all pages share: their look, figures, the table of results. In: results. Out: HTML without script or network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile
from fewshot.base.files import check_writable, write_text
from fewshot.evaluate.protocol import GPT3
from fewshot.evaluate.reports.figures import Metrics
from fewshot.evaluate.reports.paper_scores import KINDS, Kind, nearest_size, reference, row_of
from fewshot.evaluate.result import Result
from fewshot.evaluate.scoring.loss_by_position import PositionLoss
from fewshot.evaluate.variation import Spread, over_seeds

MARKER = "<!-- a page of fewshot -->"  # in every page: what has it may be replaced by a newer one
BEGINNINGS = tuple(
    f'<!doctype html>\n{marker}<html lang="en">\n<head>\n<meta charset="utf-8">\n' for marker in (f"{MARKER}\n", "")
)  # formerly without it
WIDE_POINTS = 400  # a figure of more is not shrunk to a narrow window, but scrolls

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
.results :is(td, th):nth-child(-n + 2), .results .name { text-align: left; }
th { color: var(--soft); font-weight: 600; } small, .soft { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--card);
  min-width: 0; overflow-x: auto; }
figure svg { width: 100%; height: auto; } figure svg.wide { min-width: 40rem; }
figcaption { font-size: .9rem; color: var(--soft); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem; overflow-x: auto;
  white-space: pre-wrap; font-size: .85rem; }
pre b { color: #3b82c4; } pre b.wrong { color: #d0584a; }
"""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A run as a page shows it."""

    name: str
    n_parameters: int
    summary: Mapping[str, Any] = field(default_factory=dict)
    metrics: Metrics = ()
    results: Sequence[Result] = ()  # of its newest checkpoint
    by_step: Mapping[int, Sequence[Result]] = field(default_factory=dict)  # of all that were evaluated
    positions: Sequence[PositionLoss] = ()
    samples: Sequence[tuple[str, str]] = ()  # (prompt, text)


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page of these parts under its title; raises as `check_page` does."""
    check_page(path)
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    page = (
        f"{BEGINNINGS[0]}<title>{escape(title)}</title>\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    write_text(path, page.encode("utf-8", "replace").decode())  # names of files need not be text


def check_page(path: Path) -> None:
    """Raise what would be in the way of a page at `path`: above all a file there that is no page of ours."""
    if path.parent.is_dir():  # else it is made when there is a page to write
        check_writable(path)
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        begins = file.read(200)
    if not begins.startswith(tuple(text.encode() for text in BEGINNINGS)):
        raise BadFile(f"{path} exists and was not written by fewshot: give another --out, or move it away")


def in_figure(caption: str, svg: str) -> str:
    """Return a picture with its caption."""
    points = re.match(r'<svg\b[^>]*\bwidth="([\d.]+)pt"', svg)
    if points and float(points[1]) > WIDE_POINTS:
        svg = svg.replace("<svg ", '<svg class="wide" ', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def side_by_side(figures: Sequence[str]) -> str:
    """Return figures in a grid; nothing of none."""
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def plain_table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return rows whose first cell names them; nothing of none."""
    lines = [
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>" for row in rows
    ]
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    return f'<div class="scroll"><table>{top}{"".join(lines)}</table></div>' if lines else ""


def title_of(one: Result) -> str:
    """Return the task with the paper's name of it, and with its protocol unless that is the paper's."""
    title = f"{one.task} ({one.paper_name})" if one.paper_name else one.task
    return title if one.protocol == GPT3.name else f"{title}, {one.protocol}"


def set_names(results: Iterable[Result]) -> dict[tuple[str, str], str]:
    """Return what to call each set of questions, by task and set: "" where a task has one set alone."""
    by_title: dict[str, dict[str, Result]] = {}
    for one in results:
        by_title.setdefault(title_of(one), {})[one.question_set] = one
    return {
        (title, of_set): _set_name(one, list(sets.values())) if len(sets) > 1 else ""
        for title, sets in by_title.items()
        for of_set, one in sets.items()
    }


def _set_name(one: Result, sets: Sequence[Result]) -> str:
    """Return what to call the set of questions of one result among those of several."""
    same_size = [other for other in sets if other.n_asked == one.n_asked]
    if not one.questions:
        several = sum(not other.questions for other in same_size) > 1
        return one.question_set if several else f"an unrecorded set of {one.n_asked:,} questions"
    return f"{one.n_asked:,} questions" + (f" ({one.questions})" if len(same_size) > 1 else "")


def by_metric(
    results: Sequence[Result], names: Mapping[tuple[str, str], str] | None = None
) -> dict[tuple[str, str], list[Result]]:
    """Return results by (title, metric), in their order; those of several seeds are one, other questions another
    measure.

    `names` is of the sets of questions on the whole page, where these results are not all.
    """
    names = set_names(results) if names is None else names
    groups: dict[tuple[str, str], list[Result]] = {}
    for one, _ in over_seeds(results):
        title = ", ".join(filter(None, (title_of(one), names[title_of(one), one.question_set])))
        groups.setdefault((title, one.metric), []).append(one)
    return groups


def by_kind(results: Sequence[Result]) -> dict[Kind, Result]:
    """Of one measure at several K the zero-, one- and few-shot ones: few is the paper's K, else the largest above 1."""
    at = {one.shots: one for one in results if one.value is not None}
    few = [k for k in at if k > 1]
    row = row_of(results[0].paper_name, results[0].metric) if results else None
    k_few = row.shots if row is not None and row.shots in few else max(few, default=None)
    chosen = {"zero": at.get(0), "one": at.get(1), "few": None if k_few is None else at[k_few]}
    return {kind: one for kind in KINDS if (one := chosen[kind]) is not None}


def results_table(learners: Sequence[Learner]) -> str:
    """Return tasks by K; each model has a row of its own, and the paper's model of the nearest size stands beside
    it.
    """
    shots = sorted({one.shots for learner in learners for one in learner.results})
    names = set_names(one for learner in learners for one in learner.results)
    groups = {learner.name: by_metric(learner.results, names) for learner in learners}
    spreads = {learner.name: _spreads(learner.results) for learner in learners}
    sizes = {learner.name: nearest_size(learner.n_parameters) for learner in learners}
    several = len(learners) > 1
    measured = list(dict.fromkeys(key for found in groups.values() for key in found))
    with_paper = any(_paper(groups[name][key][0], sizes[name]) for name in groups for key in groups[name])
    rows = []
    for title, metric in measured:
        for name in groups:
            if group := groups[name].get((title, metric)):
                at = {one.shots: one for one in group}
                cells = [_cell(at[k], spreads[name][_key(at[k])]) if k in at else "" for k in shots]
                if with_paper:
                    cells.append(_paper(group[0], sizes[name], named=several))
                n, skipped = max(one.n for one in group), max(one.n_skipped for one in group)
                cells.append(f"{n:,}" + (f" <small>({skipped:,} too long)</small>" if skipped else ""))
                named = f'<td class="name">{escape(name)}</td>' if several else ""
                rows.append(
                    f"<tr><td>{escape(title)}</td><td>{escape(metric)}{' (%)' if group[0].share else ''}</td>{named}"
                    f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
                )
    head = '<th class="name">model</th>' if several else ""
    head += "".join(f"<th>K = {k}</th>" for k in shots)
    if with_paper:
        size = "" if several else f" {sizes[learners[0].name]}"
        head += f"<th>GPT-3{size}<br><small>zero / one / few</small></th>"
    paper = " Beside them the paper's model of the nearest size (Table H.1)." if with_paper else ""
    return (
        f'<p class="soft">Each cell: value, 95% interval, and where fewer demonstrations fitted, how many.{paper}</p>'
        f'<div class="scroll"><table class="results"><tr><th>task</th><th>measure</th>{head}<th>questions</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _key(one: Result) -> tuple[str, str, str, int]:
    return title_of(one), one.question_set, one.metric, one.shots


def _spreads(results: Sequence[Result]) -> dict[tuple[str, str, str, int], Spread | None]:
    return {_key(one): spread for one, spread in over_seeds(results)}


def _cell(one: Result, spread: Spread | None) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "–"
    scale, digits = (100, 1) if one.share else (1, 2)
    value, low, high = (f"{scale * number:,.{digits}f}" for number in (one.value, one.low, one.high))
    lines = [f"{low} to {high}"]
    if one.shots_used < one.shots:
        lines.append(f"{one.shots_used:.1f} shots")
    if spread is not None and spread.half_width is not None:
        lines.append(f"± {scale * spread.half_width:.{digits}f} over {spread.n} seeds")
    return value + "".join(f"<br><small>{line}</small>" for line in lines)


def _paper(one: Result, size: str, *, named: bool = False) -> str:
    """Return the paper's zero-, one- and few-shot scores; empty where it has none, or for another protocol."""
    row = row_of(one.paper_name, one.metric)
    if row is None or one.protocol != GPT3.name:
        return ""
    values = [reference(one.paper_name, one.metric, kind, size) for kind in KINDS]
    if all(value is None for value in values):
        return ""
    scale = 100 if one.share else 1
    spelled = " / ".join("–" if value is None else f"{scale * value:.4g}" for value in values)
    few = f"K = {row.shots}" if row.shots else ""
    note = ", ".join(filter(None, [size if named else "", few]))
    return f"{spelled}<br><small>{note}</small>" if note else spelled


def as_read(prompt: str, text: str, right: bool = True) -> str:
    """Return the prompt, and in bold what the model wrote."""
    kind = "" if right else ' class="wrong"'
    return f"<pre>{escape(prompt)}<b{kind}>{escape(text)}</b></pre>"
