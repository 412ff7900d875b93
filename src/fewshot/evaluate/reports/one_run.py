"""One run as one page. In: an evaluated model. Out: `report.html`, without script or network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from fewshot.evaluate.reports.figures import MODEL, loss_svg, metric_column, metric_svg, page_styles, positions_svg
from fewshot.evaluate.reports.page import (
    EvaluatedModel,
    as_read,
    by_metric,
    by_setting,
    results_table,
    set_names,
    title_of,
)
from fewshot.evaluate.result import Result
from fewshot.report.chart import Styles
from fewshot.report.html import in_figure, plain_table, side_by_side, write_page

Names = Mapping[tuple[str, str], str]  # of sets of questions


def write_report(path: Path, model: EvaluatedModel, *, title: str, sections: Sequence[str] = ()) -> None:
    """Write the page: summary, loss curves, results with curves over K and steps, samples, example prompts.

    A part without content is left out. `sections`, as HTML, stand behind the results.
    """
    names = set_names([*model.results, *itertools.chain.from_iterable(model.by_step.values())])
    styles = page_styles()
    parts = [plain_table([(str(name), str(value)) for name, value in model.summary.items()])]
    if any(metric_column(model.metrics, name)[0] for name in ("loss", "val_loss")):
        parts.append(f"<h2>Training</h2>{in_figure('loss in nats per token', loss_svg(model.metrics))}")
    if model.positions:
        parts += ["<h2>What the context is worth</h2>", position_figure({MODEL: model}, styles)]
    if model.results:
        parts += [
            "<h2>In-context learning</h2>",
            side_by_side(_curves(model.results, names, styles)),
            results_table([model]),
        ]
    if over_steps := _over_steps(model.by_step, names, styles):
        parts += ["<h2>In-context learning against training step</h2>", side_by_side(over_steps)]
    parts += sections
    if model.samples:
        parts.append("<h2>Samples</h2>" + "".join(as_read(prompt, text) for prompt, text in model.samples))
    if model.early_samples:
        steps = (f"<p>step {step:,}</p>{as_read(*sample)}" for step, sample in model.early_samples.items())
        parts.append("<h2>What it wrote while it was trained</h2>" + "".join(steps))
    parts += _prompts(model.results)
    write_page(path, title, parts)


def position_figure(models: Mapping[str, EvaluatedModel], styles: Styles) -> str:
    """Return the figure of loss against position, of the models that have it, by name."""
    caption = "loss on held-out text against the tokens read before it; where it falls, the model learns from context"
    losses = {name: model.positions for name, model in models.items() if model.positions}
    return in_figure(caption, positions_svg(losses, styles))


def _curves(results: Sequence[Result], names: Names, styles: Styles) -> list[str]:
    """Return figures of every metric against K."""
    lines = {key: [(result.shots, result) for result in group] for key, group in by_metric(results, names).items()}
    return [
        in_figure(f"{title}, {metric}", metric_svg({MODEL: points}, "shots", styles))
        for (title, metric), points in lines.items()
        if sum(result.value is not None for _, result in points) > 1  # one point is no curve; the table holds it
    ]


def _over_steps(by_step: Mapping[int, Sequence[Result]], names: Names, styles: Styles) -> list[str]:
    """Return figures of zero, one and few shots against the training step, of metrics measured at two or more."""
    lines: dict[tuple[str, str], dict[str, list[tuple[float, Result]]]] = {}
    for step, results in sorted(by_step.items()):
        for key, group in by_metric(results, names).items():
            for result in by_setting(group).values():
                lines.setdefault(key, {}).setdefault(f"K = {result.shots}", []).append((step, result))
    return [
        in_figure(f"{title}, {metric}", metric_svg(points, "step", styles))
        for (title, metric), points in lines.items()
        if max(map(len, points.values())) > 1
    ]


def _prompts(results: Sequence[Result]) -> list[str]:
    """Return the first stored prompt of every task at the largest K, with the model's answer."""
    by_task = {result.task: result for result in sorted(results, key=lambda result: result.shots) if result.samples}
    parts = ["<h2>Prompts as the model read them</h2>"] if by_task else []
    for result in by_task.values():
        sample = result.samples[0]
        note = f"expected {sample.expected.strip()!r}; {result.source}"
        parts.append(f"<h3>{escape(title_of(result))}, K = {result.shots}</h3>")
        parts.append(as_read(sample.prompt, sample.answer, (sample.value or 0) > 0))
        parts.append(f'<p class="soft">{escape(note)}</p>')
    return parts
