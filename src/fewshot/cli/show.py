"""What commands print: notes, tables, a progress bar over training reports."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from fewshot.evaluate.run import Answered, Result
    from fewshot.evaluate.statistics import Comparison, Varied
    from fewshot.train.loop import Report

WIDTH = 160  # columns that the widest table needs


def print_json(value: Any) -> None:
    """One JSON value to standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table to standard output; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=max(Console().width, WIDTH)).print(table)  # a narrow terminal wraps lines, but no figure is cut


def followed(reports: Iterator[Report]) -> Report | None:
    """Follow a training run to its end with a progress bar on standard error; gives its last report."""
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
            figures = f"loss {report.loss:.3f}  {report.tokens_per_second:,.0f} tokens/s"
            progress.update(bar, completed=report.step, figures=figures)
            if report.val_loss is not None:
                progress.console.print(
                    f"step {report.step:,}: loss {report.loss:.4f}, validation {report.val_loss:.4f} nats/token, "
                    f"{report.val_bits_per_byte:.4f} bits/byte, {report.seconds:.0f} s",
                    highlight=False,
                )
    return last


@contextlib.contextmanager
def counted(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error for something that reports (done, total), gone when it is done."""
    with Progress(
        TextColumn(name), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_results(results: Iterable[Result], *, title: str | None = None) -> None:
    """A table of evaluation results; seeds are shown where there are several."""
    results = list(results)
    seeds = ("seed",) if len({result.seed for result in results}) > 1 else ()
    rows = []
    for result in results:
        interval = "" if result.low is None else f"{result.low:.3f}-{result.high:.3f}"
        rows.append(
            (
                result.task,
                result.metric,
                str(result.shots),
                *(str(result.seed) for _ in seeds),
                f"{result.shots_used:.1f}",
                str(result.n),
                "-" if result.value is None else f"{result.value:.3f}",
                interval,
                "" if result.ideal is None else f"{result.ideal:.3f}",
                "" if result.chance is None else f"{result.chance:.3f}",
                str(result.n_skipped or ""),
            )
        )
    columns = ("task", "metric", "K", *seeds, "K used", "n", "value", "95% interval", "ideal", "chance", "too long")
    print_table(columns, rows, title=title)


def show_varied(rows: Iterable[Varied], *, title: str) -> None:
    """A table of means over several seeds or orders."""
    lines = [
        (
            row.task,
            row.metric,
            str(row.shots),
            str(row.spread.n),
            f"{row.spread.mean:.3f}",
            "" if row.spread.half_width is None else f"± {row.spread.half_width:.3f}",
            f"{row.spread.deviation:.3f}",
            "" if row.turned is None else f"{100 * row.turned:.1f}%",
        )
        for row in rows
    ]
    columns = ("task", "metric", "K", "times", "mean", "95% of the mean", "deviation", "now right, now wrong")
    print_table(columns, lines, title=title)


def show_comparisons(rows: Iterable[tuple[Answered, Comparison]], *, title: str) -> None:
    """A table of two models on the same questions."""
    lines = [
        (
            asked.task.name,
            one.metric,
            str(asked.shots),
            str(asked.seed),
            str(one.n),
            f"{one.first:.3f}",
            f"{one.second:.3f}",
            f"{one.difference:+.3f}",
            f"{one.low:+.3f} to {one.high:+.3f}",
            "" if one.only_first is None else f"{one.only_first} : {one.only_second}",
            "" if one.p_value is None else f"{one.p_value:.2g}",
        )
        for asked, one in rows
    ]
    right = ("right in one only", "p (McNemar)")
    columns = ("task", "metric", "K", "seed", "n", "first", "second", "difference", "95% interval", *right)
    print_table(columns, lines, title=title)
