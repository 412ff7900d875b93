"""Several runs on one page, as figures 1.2, 1.3 and 3.x of the paper show its eight sizes. In: runs. Out: a page.

Accuracy against K, size and training step, the gain from demonstrations against size, and loss against position.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from fewshot.base.errors import check
from fewshot.evaluate.compare import Gap, gap
from fewshot.evaluate.reports.figures import Against, gaps_svg, losses_svg, measure_svg, metric_column
from fewshot.evaluate.reports.one_run import position_figure
from fewshot.evaluate.reports.page import (
    Learner,
    by_kind,
    by_metric,
    in_figure,
    plain_table,
    results_table,
    set_names,
    side_by_side,
    write_page,
)
from fewshot.evaluate.reports.paper_scores import KINDS, nearest_size
from fewshot.evaluate.result import Result

Key = tuple[str, str]  # title of a task, metric
Points = list[tuple[float, Result]]


def write_lab(path: Path, learners: Sequence[Learner], *, title: str) -> None:
    """Write the page, the smallest model first; a part without content is left out."""
    by_name = {one.name: one for one in sorted(learners, key=lambda one: one.n_parameters)}
    check(len(by_name) == len(learners), "two runs have the same name: name their folders differently")
    ordered = list(by_name.values())
    parts = [_models(ordered)]
    if any(metric_column(one.metrics, name)[0] for one in ordered for name in ("loss", "val_loss")):
        curves = losses_svg({one.name: one.metrics for one in ordered})
        parts += ["<h2>Training</h2>", in_figure("loss in nats per token", curves)]
    if any(one.positions for one in ordered):
        parts += ["<h2>What the context is worth</h2>", position_figure(by_name)]
    if any(one.results for one in ordered):
        parts += ["<h2>In-context learning</h2>", *_gaps(ordered), *_tasks(ordered), results_table(ordered)]
    write_page(path, title, parts)


def _models(learners: Sequence[Learner]) -> str:
    """Return the runs and what they are."""
    names = list(dict.fromkeys(name for one in learners for name in one.summary))
    rows = [
        (one.name, f"GPT-3 {nearest_size(one.n_parameters)}", *(str(one.summary.get(name, "")) for name in names))
        for one in learners
    ]
    return plain_table(rows, ("run", "nearest size", *names))


def _tasks(learners: Sequence[Learner]) -> list[str]:
    """Of each measure its curves: against K, against size, against training step."""
    names = _names(learners)
    groups = {one.name: by_metric(one.results, names) for one in learners}
    steps = {
        one.name: {step: by_metric(results, names) for step, results in sorted(one.by_step.items())} for one in learners
    }
    sizes = {one.name: one.n_parameters for one in learners}
    parts = []
    for key in dict.fromkeys(key for found in groups.values() for key in found):
        at_key = {name: found[key] for name, found in groups.items() if key in found}
        curves: tuple[tuple[str, Against, dict[str, Points]], ...] = (
            ("the number of demonstrations", "shots", _by_shots(at_key)),
            ("size", "size", _by_size(at_key, sizes)),
            ("training step", "step", _by_step(key, steps)),
        )
        figures = [
            in_figure(f"{', '.join(key)}, against {what}", measure_svg(lines, against))
            for what, against, lines in curves
            if _drawn(lines)
        ]
        if figures:
            parts += [f"<h3>{escape(', '.join(key))}</h3>", side_by_side(figures)]
    return parts


def _names(learners: Sequence[Learner]) -> dict[tuple[str, str], str]:
    """Of all sets of questions on the page."""
    found = [results for one in learners for results in (one.results, *one.by_step.values())]
    return set_names(itertools.chain.from_iterable(found))


def _by_shots(groups: Mapping[str, Sequence[Result]]) -> dict[str, Points]:
    return {name: [(one.shots, one) for one in group] for name, group in groups.items()}


def _by_size(groups: Mapping[str, Sequence[Result]], sizes: Mapping[str, int]) -> dict[str, Points]:
    """Return a line each of zero, one and few shots."""
    lines: dict[str, Points] = {}
    for name, group in groups.items():
        for kind, one in by_kind(group).items():
            lines.setdefault(f"{kind}-shot", []).append((sizes[name], one))
    return lines


def _by_step(key: Key, steps: Mapping[str, Mapping[int, Mapping[Key, list[Result]]]]) -> dict[str, Points]:
    """Return what the most shots give at each step, by run and K."""
    lines: dict[str, Points] = {}
    for name, at in steps.items():
        for step, found in at.items():
            if chosen := by_kind(found.get(key, [])):
                one = list(chosen.values())[-1]
                lines.setdefault(f"{name}, K = {one.shots}", []).append((step, one))
    return lines


def _drawn(lines: Mapping[str, Points]) -> bool:
    """Return whether a line has two different places."""
    return any(len({x for x, one in points if one.value is not None}) > 1 for points in lines.values())


def _gaps(learners: Sequence[Learner]) -> list[str]:
    """Return what one and few demonstrations add to zero, against size, of all shares of right answers; as figure
    1.3.
    """
    parts = []
    names = _names(learners)
    for kind in KINDS[1:]:
        lines: dict[str, list[tuple[float, Gap]]] = {}
        for learner in learners:
            for (title, metric), group in by_metric(learner.results, names).items():
                found = by_kind(group)
                added = gap(found["zero"], found[kind]) if {"zero", kind} <= found.keys() else None
                if added is not None and group[0].share:
                    lines.setdefault(f"{title}, {metric}", []).append((learner.n_parameters, added))
        lines = {name: points for name, points in lines.items() if len({x for x, _ in points}) > 1}
        if lines:
            label = f"{kind}-shot minus zero-shot"
            parts.append(in_figure(f"{label}, against size", gaps_svg(lines, f"gap-{kind}", label)))
    return parts
