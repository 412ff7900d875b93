"""What commands print: JSON, tables, progress bars. In: values. Out: standard output, bars on standard error."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fewshot.base.dist import finish, n_ranks, rank
from fewshot.base.errors import FewshotError
from fewshot.base.log import note

if TYPE_CHECKING:
    from pathlib import Path

    from fewshot.evaluate.compare import Comparison
    from fewshot.evaluate.result import Result, TaskAnswers
    from fewshot.evaluate.variation import Varied
    from fewshot.train.records.metrics import StepMetrics

WIDTH = 160  # columns of a table that goes into a file or a pipe
ROW_NAMES = ("task", "protocol", "metric", "K", "seed")  # columns that say what the figures behind them are of


def print_json(value: Any) -> None:
    """Print one JSON value to standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, text: int = 1
) -> None:
    """Print a table; the first `text` columns are text and name the row, the others are numbers.

    Where a terminal is too narrow the columns stand in several tables below each other, each with the names.
    """
    rows = list(rows)
    widths = [max(map(cell_len, cells)) + 3 for cells in zip(columns, *rows, strict=True)]  # with its lines and spaces
    console = Console()
    width = console.width if console.is_terminal else WIDTH
    for places in _that_fit(widths, text, width):
        table = Table(title=title and escape(title), title_justify="left")
        for i in places:
            table.add_column(escape(columns[i]), justify="left" if i < text else "right", overflow="fold")
        for row in rows:
            table.add_row(*(escape(row[i]) for i in places))
        Console(width=width).print(table)
        title = None


def _that_fit(widths: Sequence[int], text: int, width: int) -> list[list[int]]:
    """Return the places of the columns of each table, as many tables as needed; the first `text` are in each."""
    names = list(range(text))
    tables = [names[:]]
    for i in range(text, len(widths)):
        if sum(widths[at] for at in [*tables[-1], i]) + 1 > width and len(tables[-1]) > text:
            tables.append(names[:])
        tables[-1].append(i)
    return tables


def followed(reports: Iterator[StepMetrics]) -> StepMetrics | None:
    """Follow a training run to its end with a progress bar on standard error; return its last metrics.

    Of several processes the first shows the bar.
    """
    if rank() > 0:
        return (deque(reports, maxlen=1) or [None])[0]
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    first = last = next(reports, None)  # what goes wrong before the first step shall not leave an empty bar
    if first is None:
        return None
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("train", total=first.n_steps, figures="")
        for report in itertools.chain([first], reports):
            last = report
            loss = "-" if report.loss is None else f"{report.loss:.4f}"
            progress.update(
                bar, completed=report.step, figures=f"loss {loss}  {report.tokens_per_second:,.0f} tokens/s"
            )
            if report.event is not None:
                progress.console.print(f"step {report.step:,}: {report.event}", highlight=False)
            if report.val_loss is not None:
                progress.console.print(
                    f"step {report.step:,}: loss {loss}, validation {report.val_loss:.4f} nats/token, "
                    f"{report.val_bits_per_byte:.4f} bits/byte, {report.seconds:.0f} s",
                    highlight=False,
                )
    return last


def print_outcome(folder: Path, last: StepMetrics | None, *, as_json: bool = False) -> int:
    """Print where the run is and return the exit code: 130 if it was interrupted.

    With `as_json` the figures of a run that is done go to standard output.

    Of several processes the first prints, and all return 0: to torchrun any other is the failure of one of them.
    """
    finish()
    if n_ranks() > 1 and rank() > 0:
        return 0
    if last is not None and last.step < last.n_steps:
        how = f"fewshot resume {shlex.quote(str(folder))}"
        note(f"stopped after step {last.step:,} of {last.n_steps:,}; continue with: {how}")
        return 130 if n_ranks() == 1 else 0
    _print_verdicts(folder)
    note(f"done: {folder}; try: fewshot generate {shlex.quote(str(folder))} 'Once upon a time'")
    if as_json:
        from fewshot.checkpoint.folder import RunFolder
        from fewshot.train.records.metrics import read_metrics

        print_json(read_metrics(RunFolder(folder).metrics)[-1])
    return 0


def _print_verdicts(folder: Path) -> None:
    """Say whether the loss is normal; what stands in the way of that is told, and fails nothing."""
    from fewshot.train.records.verdict import verdicts

    try:
        for line in verdicts(folder):
            note(line)
    except (FewshotError, OSError) as error:
        note(f"whether the loss is normal cannot be told: {error}")


@contextlib.contextmanager
def counted(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error for what reports (done, total); it is gone at the end."""
    with Progress(
        TextColumn(name), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_results(results: Iterable[Result], *, title: str | None = None) -> None:
    """Print a table of evaluation results; what is the same for all, or empty, has no column."""
    results = list(results)
    columns: dict[str, list[str]] = {
        "task": [result.task for result in results],
        "protocol": [result.protocol for result in results],
        "metric": [result.metric for result in results],
        "K": [str(result.shots) for result in results],
        "seed": [str(result.seed) for result in results],
        "K used": [f"{result.shots_used:.1f}" for result in results],
        "n": [str(result.n) for result in results],
        "value": ["-" if result.value is None else f"{result.value:.3f}" for result in results],
        "95% interval": ["" if result.low is None else f"{result.low:.3f}-{result.high:.3f}" for result in results],
        "ideal": ["" if result.ideal is None else f"{result.ideal:.3f}" for result in results],
        "chance": ["" if result.chance is None else f"{result.chance:.3f}" for result in results],
        "too long": [str(result.n_skipped or "") for result in results],
    }
    for name in ("protocol", "seed"):
        if len(set(columns[name])) == 1:
            del columns[name]
    if all(result.shots_used == result.shots for result in results):
        del columns["K used"]
    print_columns(columns, title=title)


def print_columns(columns: Mapping[str, Sequence[str]], *, title: str | None = None) -> None:
    """Print a table of these columns, without those that are empty; the columns of `ROW_NAMES` name the row."""
    filled = {name: cells for name, cells in columns.items() if any(cells) or not cells}
    text = sum(name in ROW_NAMES for name in filled)
    print_table(list(filled), list(zip(*filled.values(), strict=True)), title=title, text=text)


def show_varied(rows: Iterable[Varied], *, title: str) -> None:
    """Print a table of means over several seeds or orders."""
    rows = list(rows)
    several = len({row.protocol for row in rows}) > 1
    columns = {
        "task": [row.task for row in rows],
        "protocol": [row.protocol if several else "" for row in rows],
        "metric": [row.metric for row in rows],
        "K": [str(row.shots) for row in rows],
        "times": [str(row.spread.n) for row in rows],
        "mean": [f"{row.spread.mean:.3f}" for row in rows],
        "95% of the mean": ["" if row.spread.half_width is None else f"± {row.spread.half_width:.3f}" for row in rows],
        "deviation": [f"{row.spread.deviation:.3f}" for row in rows],
        "now right, now wrong": ["" if row.turned is None else f"{100 * row.turned:.1f}%" for row in rows],
    }
    print_columns(columns, title=title)


def show_comparisons(rows: Iterable[tuple[TaskAnswers, Comparison]], *, title: str) -> None:
    """Print a table of two models, or two protocols, on the same questions."""
    rows = list(rows)
    several = len({answers.task.protocol.name for answers, _ in rows}) > 1
    columns = {
        "task": [answers.task.name for answers, _ in rows],
        "protocol": [answers.task.protocol.name if several else "" for answers, _ in rows],
        "metric": [comparison.metric for _, comparison in rows],
        "K": [str(answers.shots) for answers, _ in rows],
        "seed": [str(answers.seed) for answers, _ in rows],
        "n": [str(comparison.n) for _, comparison in rows],
        "first": [f"{comparison.first:.3f}" for _, comparison in rows],
        "second": [f"{comparison.second:.3f}" for _, comparison in rows],
        "difference": [f"{comparison.difference:+.3f}" for _, comparison in rows],
        "95% interval": [f"{comparison.low:+.3f} to {comparison.high:+.3f}" for _, comparison in rows],
        "right in one only": [
            "" if comparison.only_first is None else f"{comparison.only_first} : {comparison.only_second}"
            for _, comparison in rows
        ],
        "p (McNemar)": ["" if comparison.p_value is None else f"{comparison.p_value:.2g}" for _, comparison in rows],
    }
    print_columns(columns, title=title)
