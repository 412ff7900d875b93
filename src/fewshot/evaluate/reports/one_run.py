"""One run as one page. In: a run's tables and results. Out: `report.html`, without script or network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from fewshot.evaluate.reports.figures import loss_svg, measure_svg, metric_column, positions_svg
from fewshot.evaluate.reports.page import (
    Learner,
    as_read,
    by_kind,
    by_metric,
    in_figure,
    plain_table,
    results_table,
    set_names,
    side_by_side,
    title_of,
    write_page,
)
from fewshot.evaluate.result import Result

Names = Mapping[tuple[str, str], str]  # of sets of questions


def write_report(path: Path, learner: Learner, *, title: str) -> None:
    """Write the page: summary, loss curves, results with curves over K and steps, samples, example prompts.

    A part without content is left out.
    """
    names = set_names([*learner.results, *itertools.chain.from_iterable(learner.by_step.values())])
    parts = [plain_table([(str(name), str(value)) for name, value in learner.summary.items()])]
    if any(metric_column(learner.metrics, name)[0] for name in ("loss", "val_loss")):
        parts.append(f"<h2>Training</h2>{in_figure('loss in nats per token', loss_svg(learner.metrics))}")
    if learner.positions:
        parts += ["<h2>What the context is worth</h2>", position_figure({learner.name: learner})]
    if learner.results:
        parts += [
            "<h2>In-context learning</h2>",
            side_by_side(_curves(learner.results, names)),
            results_table([learner]),
        ]
    if over_steps := _over_steps(learner.by_step, names):
        parts += ["<h2>In-context learning against training step</h2>", side_by_side(over_steps)]
    if learner.samples:
        parts.append("<h2>Samples</h2>" + "".join(as_read(prompt, text) for prompt, text in learner.samples))
    parts += _prompts(learner.results)
    write_page(path, title, parts)


def position_figure(learners: Mapping[str, Learner]) -> str:
    """Return loss against position of those that have it, by name."""
    caption = "loss on held-out text against the tokens read before it; where it falls, the model learns from context"
    return in_figure(caption, positions_svg({name: one.positions for name, one in learners.items() if one.positions}))


def _curves(results: Sequence[Result], names: Names) -> list[str]:
    return [
        in_figure(f"{title}, {metric}", measure_svg({"model": [(one.shots, one) for one in group]}, "shots"))
        for (title, metric), group in by_metric(results, names).items()
        if sum(one.value is not None for one in group) > 1  # one point is no curve; the table holds it
    ]


def _over_steps(by_step: Mapping[int, Sequence[Result]], names: Names) -> list[str]:
    """Return figures of zero, one and few shots against the training step, of each measure that was taken at two or
    more.
    """
    lines: dict[tuple[str, str], dict[str, list[tuple[float, Result]]]] = {}
    for step, results in sorted(by_step.items()):
        for key, group in by_metric(results, names).items():
            for one in by_kind(group).values():
                lines.setdefault(key, {}).setdefault(f"K = {one.shots}", []).append((step, one))
    return [
        in_figure(f"{title}, {metric}", measure_svg(found, "step"))
        for (title, metric), found in lines.items()
        if max(map(len, found.values())) > 1
    ]


def _prompts(results: Sequence[Result]) -> list[str]:
    """Of every task the first kept prompt at the largest K, with the model's answer."""
    shown = {one.task: one for one in sorted(results, key=lambda one: one.shots) if one.samples}
    parts = ["<h2>Prompts as the model read them</h2>"] if shown else []
    for one in shown.values():
        sample = one.samples[0]
        note = f"expected {sample.expected.strip()!r}; {one.source}"
        parts.append(f"<h3>{escape(title_of(one))}, K = {one.shots}</h3>")
        parts.append(as_read(sample.prompt, sample.answer, (sample.value or 0) > 0))
        parts.append(f'<p class="soft">{escape(note)}</p>')
    return parts
