"""What pages of results share: the evaluated model, results table, names of question sets. In: results. Out: HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from fewshot.evaluate.protocol import GPT3
from fewshot.evaluate.reports.figures import Metrics
from fewshot.evaluate.reports.paper_scores import SETTINGS, Setting, nearest_size, paper_score, row_of
from fewshot.evaluate.result import Result
from fewshot.evaluate.scoring.loss_by_position import PositionLoss
from fewshot.evaluate.variation import Spread, over_seeds


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A run's model as a page shows it, with what was measured of it."""

    name: str
    n_parameters: int
    summary: Mapping[str, Any] = field(default_factory=dict)
    metrics: Metrics = ()
    results: Sequence[Result] = ()  # of its newest checkpoint
    by_step: Mapping[int, Sequence[Result]] = field(default_factory=dict)  # of all that were evaluated
    positions: Sequence[PositionLoss] = ()
    samples: Sequence[tuple[str, str]] = ()  # (prompt, text)
    early_samples: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # what it wrote in training, by step


def title_of(result: Result) -> str:
    """Return the task's name, with the paper's name for it, and with the protocol unless that is the paper's."""
    title = f"{result.task} ({result.paper_name})" if result.paper_name else result.task
    return title if result.protocol == GPT3.name else f"{title}, {result.protocol}"


def set_names(results: Iterable[Result]) -> dict[tuple[str, str], str]:
    """Return what to call each set of questions, by task and set: "" where a task has one set alone."""
    by_title: dict[str, dict[str, Result]] = {}
    for result in results:
        by_title.setdefault(title_of(result), {})[result.question_set] = result
    return {
        (title, of_set): _set_name(result, list(sets.values())) if len(sets) > 1 else ""
        for title, sets in by_title.items()
        for of_set, result in sets.items()
    }


def _set_name(result: Result, sets: Sequence[Result]) -> str:
    """Return what to call the set of questions of one result among those of several."""
    same_size = [other for other in sets if other.n_asked == result.n_asked]
    if not result.questions:
        several = sum(not other.questions for other in same_size) > 1
        return result.question_set if several else f"an unrecorded set of {result.n_asked:,} questions"
    return f"{result.n_asked:,} questions" + (f" ({result.questions})" if len(same_size) > 1 else "")


def by_metric(
    results: Sequence[Result], names: Mapping[tuple[str, str], str] | None = None
) -> dict[tuple[str, str], list[Result]]:
    """Return results by (title, metric), in their order; results of several seeds are joined into one.

    Results on another set of questions have a title of their own. `names` is of the sets of questions on the whole
    page, where these results are not all.
    """
    names = set_names(results) if names is None else names
    groups: dict[tuple[str, str], list[Result]] = {}
    for result, _ in over_seeds(results):
        title = ", ".join(filter(None, (title_of(result), names[title_of(result), result.question_set])))
        groups.setdefault((title, result.metric), []).append(result)
    return groups


def by_setting(results: Sequence[Result]) -> dict[Setting, Result]:
    """Return the zero-, one- and few-shot results of one metric: few is the paper's K, else the largest above 1."""
    at = {result.shots: result for result in results if result.value is not None}
    few = [k for k in at if k > 1]
    row = row_of(results[0].paper_name, results[0].metric) if results else None
    k_few = row.shots if row is not None and row.shots in few else max(few, default=None)
    chosen = {"zero": at.get(0), "one": at.get(1), "few": None if k_few is None else at[k_few]}
    return {setting: result for setting in SETTINGS if (result := chosen[setting]) is not None}


def results_table(models: Sequence[EvaluatedModel]) -> str:
    """Return a table of tasks by K: a row for each model, with the score of the paper's model of the nearest size."""
    shots = sorted({result.shots for model in models for result in model.results})
    names = set_names(result for model in models for result in model.results)
    groups = {model.name: by_metric(model.results, names) for model in models}
    spreads = {model.name: _spreads(model.results) for model in models}
    sizes = {model.name: nearest_size(model.n_parameters) for model in models}
    several = len(models) > 1
    measured = list(dict.fromkeys(key for group in groups.values() for key in group))
    with_paper = any(_paper(groups[name][key][0], sizes[name]) for name in groups for key in groups[name])
    rows = []
    for title, metric in measured:
        for name in groups:
            if group := groups[name].get((title, metric)):
                at = {result.shots: result for result in group}
                cells = [_cell(at[k], spreads[name][_key(at[k])]) if k in at else "" for k in shots]
                if with_paper:
                    cells.append(_paper(group[0], sizes[name], named=several))
                n, skipped = max(result.n for result in group), max(result.n_skipped for result in group)
                cells.append(f"{n:,}" + (f" <small>({skipped:,} too long)</small>" if skipped else ""))
                named = f'<td class="name">{escape(name)}</td>' if several else ""
                rows.append(
                    f"<tr><td>{escape(title)}</td><td>{escape(metric)}{' (%)' if group[0].share else ''}</td>{named}"
                    f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
                )
    head = '<th class="name">model</th>' if several else ""
    head += "".join(f"<th>K = {k}</th>" for k in shots)
    if with_paper:
        size = "" if several else f" {sizes[models[0].name]}"
        head += f"<th>GPT-3{size}<br><small>zero / one / few</small></th>"
    paper = " The column GPT-3 has the paper's model of the nearest size (Table H.1)." if with_paper else ""
    return (
        f'<p class="soft">Each cell has the value, its 95% interval, and the mean number of demonstrations '
        f"if fewer than K fit.{paper}</p>"
        f'<div class="scroll"><table class="results"><tr><th>task</th><th>metric</th>{head}<th>questions</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _key(result: Result) -> tuple[str, str, str, int]:
    """Return what tells a cell of the table from the others."""
    return title_of(result), result.question_set, result.metric, result.shots


def _spreads(results: Sequence[Result]) -> dict[tuple[str, str, str, int], Spread | None]:
    """Return the spread over seeds of each result's cell."""
    return {_key(result): spread for result, spread in over_seeds(results)}


def _cell(result: Result, spread: Spread | None) -> str:
    """Return a cell: the value, and in small print its interval, the shots that fitted and the spread over seeds."""
    if result.value is None or result.low is None or result.high is None:
        return "–"
    scale, digits = (100, 1) if result.share else (1, 2)
    value, low, high = (f"{scale * number:,.{digits}f}" for number in (result.value, result.low, result.high))
    lines = [f"{low} to {high}"]
    if result.shots_used < result.shots:
        lines.append(f"{result.shots_used:.1f} shots")
    if spread is not None and spread.half_width is not None:
        lines.append(f"± {scale * spread.half_width:.{digits}f} over {spread.n} seeds")
    return value + "".join(f"<br><small>{line}</small>" for line in lines)


def _paper(result: Result, size: str, *, named: bool = False) -> str:
    """Return the paper's zero-, one- and few-shot scores; empty where it has none, or for another protocol."""
    row = row_of(result.paper_name, result.metric)
    if row is None or result.protocol != GPT3.name:
        return ""
    values = [paper_score(result.paper_name, result.metric, setting, size) for setting in SETTINGS]
    if all(value is None for value in values):
        return ""
    scale = 100 if result.share else 1
    spelled = " / ".join("–" if value is None else f"{scale * value:.4g}" for value in values)
    few = f"K = {row.shots}" if row.shots else ""
    note = ", ".join(filter(None, [size if named else "", few]))
    return f"{spelled}<br><small>{note}</small>" if note else spelled


def as_read(prompt: str, text: str, right: bool = True) -> str:
    """Return the prompt, and in bold what the model wrote."""
    wrong = "" if right else ' class="wrong"'
    return f"<pre>{escape(prompt)}<b{wrong}>{escape(text)}</b></pre>"
