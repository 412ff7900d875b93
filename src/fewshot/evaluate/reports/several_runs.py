"""Several runs on one page, as figures 1.2, 1.3 and 3.x of the paper show its eight sizes. In: runs. Out: a page.

Accuracy against K, size and training step, the gain from demonstrations against size, and loss against position.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from fewshot.base.errors import check
from fewshot.evaluate.compare import Gap, gap
from fewshot.evaluate.reports.figures import Against, gaps_svg, losses_svg, metric_column, metric_svg, page_styles
from fewshot.evaluate.reports.one_run import position_figure
from fewshot.evaluate.reports.page import EvaluatedModel, by_metric, by_setting, results_table, set_names
from fewshot.evaluate.reports.paper_scores import SETTINGS, Setting, nearest_size
from fewshot.evaluate.result import Result
from fewshot.report.chart import Styles
from fewshot.report.html import in_figure, plain_table, side_by_side, write_page

Key = tuple[str, str]  # title of a task, metric
Points = list[tuple[float, Result]]


def write_several_runs(path: Path, models: Sequence[EvaluatedModel], *, title: str) -> None:
    """Write the page, the smallest model first; a part without content is left out."""
    by_name = {model.name: model for model in sorted(models, key=lambda model: model.n_parameters)}
    check(len(by_name) == len(models), "two runs have the same name: name their folders differently")
    ordered, styles = list(by_name.values()), page_styles(tuple(by_name))
    parts = [_models(ordered)]
    if any(metric_column(model.metrics, name)[0] for model in ordered for name in ("loss", "val_loss")):
        curves = losses_svg({model.name: model.metrics for model in ordered}, styles)
        parts += ["<h2>Training</h2>", in_figure("loss in nats per token", curves)]
    if any(model.positions for model in ordered):
        parts += ["<h2>What the context is worth</h2>", position_figure(by_name, styles)]
    if any(model.results for model in ordered):
        figures = [*_gaps(ordered, styles), *_tasks(ordered, styles)]
        parts += ["<h2>In-context learning</h2>", *figures, results_table(ordered)]
    write_page(path, title, parts)


def _models(models: Sequence[EvaluatedModel]) -> str:
    """Return a table of the runs and what they are."""
    columns = list(dict.fromkeys(name for model in models for name in model.summary))
    rows = [
        (
            model.name,
            f"GPT-3 {nearest_size(model.n_parameters)}",
            *(str(model.summary.get(name, "")) for name in columns),
        )
        for model in models
    ]
    return plain_table(rows, ("run", "nearest size", *columns))


def _tasks(models: Sequence[EvaluatedModel], styles: Styles) -> list[str]:
    """Return the curves of each metric: against K, against size, against training step."""
    names = _names(models)
    groups = {model.name: by_metric(model.results, names) for model in models}
    steps = {
        model.name: {step: by_metric(results, names) for step, results in sorted(model.by_step.items())}
        for model in models
    }
    sizes = {model.name: model.n_parameters for model in models}
    parts = []
    for key in dict.fromkeys(key for group in groups.values() for key in group):
        at_key = {name: group[key] for name, group in groups.items() if key in group}
        curves: tuple[tuple[str, Against, dict[str, Points]], ...] = (
            ("the number of demonstrations", "shots", _by_shots(at_key)),
            ("size", "size", _by_size(at_key, sizes)),
            ("training step", "step", _by_step(key, steps, styles)),
        )
        figures = [
            in_figure(f"{', '.join(key)}, against {what}", metric_svg(lines, against, styles))
            for what, against, lines in curves
            if _has_curve(lines)
        ]
        if figures:
            parts += [f"<h3>{escape(', '.join(key))}</h3>", side_by_side(figures)]
    return parts


def _names(models: Sequence[EvaluatedModel]) -> dict[tuple[str, str], str]:
    """Return what to call each set of questions on the page."""
    results = [results for model in models for results in (model.results, *model.by_step.values())]
    return set_names(itertools.chain.from_iterable(results))


def _by_shots(groups: Mapping[str, Sequence[Result]]) -> dict[str, Points]:
    """Return a line of each run."""
    return {name: [(result.shots, result) for result in group] for name, group in groups.items()}


def _by_size(groups: Mapping[str, Sequence[Result]], sizes: Mapping[str, int]) -> dict[str, Points]:
    """Return a line each of zero, one and few shots; of few shots one for each K that runs call so."""
    chosen = {name: by_setting(group) for name, group in groups.items()}
    label = _labels(list(chosen.values()))
    lines: dict[str, Points] = {}
    for setting in SETTINGS:
        for name, results in chosen.items():
            if result := results.get(setting):
                lines.setdefault(label(setting, result.shots), []).append((sizes[name], result))
    return lines


def _labels(chosen: Sequence[Mapping[Setting, Result]]) -> Callable[[Setting, int], str]:
    """Return what names a setting at K; the name holds K where the setting has another K elsewhere."""
    of_setting = {(setting, result.shots) for results in chosen for setting, result in results.items()}
    counts = Counter(setting for setting, _ in of_setting)
    return lambda setting, shots: f"{setting}-shot" + (f", K = {shots}" if counts[setting] > 1 else "")


def _by_step(
    key: Key, steps: Mapping[str, Mapping[int, Mapping[Key, list[Result]]]], styles: Styles
) -> dict[str, Points]:
    """Return what the most shots give at each step, by run and K, in the run's style."""
    lines: dict[str, Points] = {}
    for name, by_key in steps.items():
        for step, groups in by_key.items():
            if chosen := by_setting(groups.get(key, [])):
                result = list(chosen.values())[-1]
                label = f"{name}, K = {result.shots}"
                styles.share(label, name)
                lines.setdefault(label, []).append((step, result))
    return lines


def _has_curve(lines: Mapping[str, Points]) -> bool:
    """Return whether a line has values at two different places."""
    return any(len({x for x, result in points if result.value is not None}) > 1 for points in lines.values())


def _gaps(models: Sequence[EvaluatedModel], styles: Styles) -> list[str]:
    """Return figures of what one and few demonstrations add to zero, against size, of shares of right answers.

    As in figure 1.3 of the paper.
    """
    names = _names(models)
    groups = [(model.n_parameters, by_metric(model.results, names)) for model in models]
    parts = []
    for setting in SETTINGS[1:]:
        lines: dict[str, list[tuple[float, Gap]]] = {}
        for key in dict.fromkeys(key for _, by_key in groups for key in by_key):
            for label, point in _gaps_of(key, setting, groups):
                styles.share(label, ", ".join(key))
                lines.setdefault(label, []).append(point)
        lines = {name: points for name, points in lines.items() if len({x for x, _ in points}) > 1}
        if lines:
            y_label = f"{setting}-shot minus zero-shot"
            parts.append(in_figure(f"{y_label}, against size", gaps_svg(lines, f"gap-{setting}", y_label, styles)))
    return parts


def _gaps_of(
    key: Key, setting: Setting, groups: Sequence[tuple[int, Mapping[Key, list[Result]]]]
) -> Iterator[tuple[str, tuple[float, Gap]]]:
    """Yield (label, (parameters, gap)) of each model; the label holds K where models have another K for the setting."""
    shares = [(size, by_key[key]) for size, by_key in groups if key in by_key and by_key[key][0].share]
    chosen = [(size, by_setting(group)) for size, group in shares]
    several_k = len({results[setting].shots for _, results in chosen if setting in results}) > 1
    for size, results in chosen:
        added = gap(results["zero"], results[setting]) if {"zero", setting} <= results.keys() else None
        if added is not None:
            yield ", ".join((*key, *([f"K = {results[setting].shots}"] if several_k else []))), (size, added)
