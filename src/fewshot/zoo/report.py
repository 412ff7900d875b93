"""All findings on one page, our figures beside the papers' claims. In: findings, records. Out: HTML, Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fewshot.meta.curves import Measured, from_json
from fewshot.meta.report import sections
from fewshot.report.html import in_figure, plain_table, side_by_side, write_page
from fewshot.zoo.finding import Finding
from fewshot.zoo.run import as_results
from fewshot.zoo.statements import Outcome, outcomes

SECONDS = 60.0  # of a minute
COLUMNS = ("finding", "the paper's claim", "here", "holds", "minutes", "command")


@dataclass(frozen=True)
class Checked:
    """A finding with its records and what became of its statements; none of either where it was not run."""

    file: Path
    finding: Finding
    records: Mapping[str, Mapping[str, Any]]

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of its statements."""
        return list(outcomes(self.finding, as_results(self.records))) if self.records else []

    @property
    def minutes(self) -> float:
        """What its runs took, one after another."""
        return sum(record["seconds"] for record in self.records.values()) / SECONDS

    @property
    def verdict(self) -> str:
        """Whether all holds, in words."""
        rows = self.outcomes()
        n = sum(row.holds for row in rows)
        return "not run" if not rows else "yes" if n == len(rows) else f"{n} of {len(rows)}"

    @property
    def command(self) -> str:
        """The command that runs it again."""
        return f"fewshot verify {self.file}"


def write_zoo(path: Path, checked: Sequence[Checked]) -> None:
    """Write the page; a finding that was not run says so."""
    rows = [(c.file.stem, c.finding.title, c.verdict, f"{c.minutes:.1f}" if c.records else "-") for c in checked]
    parts = [plain_table(rows, ("finding", "", "all statements hold", "minutes"))]
    taken: set[str] = set()
    for part in checked:
        parts += _section(part, taken)
    write_page(path, "fewshot: published findings, run again", parts)


def _section(checked: Checked, taken: set[str]) -> Iterator[str]:
    paper = checked.finding.paper
    yield f'<h2 id="{escape(checked.file.stem)}">{escape(checked.finding.title)}</h2>'
    yield f"<p>{escape(paper.claim)} <small>({escape(paper.source)})</small></p>"
    facts = [("the paper's numbers", paper.numbers), ("what differs here", paper.differs), ("command", checked.command)]
    yield plain_table([fact for fact in facts if fact[1]])
    if not checked.records:
        yield "<p>Not run yet.</p>"
        return
    rows = [(row.verdict, row.says + _why_not(row), row.value, row.band) for row in checked.outcomes()]
    unbroken = [[cell.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}") for cell in row] for row in rows]
    yield plain_table(unbroken, ("", "statement", "here", "asked"))
    parts = list(sections(_measured(checked), taken))
    charts = [(f"{part.tasks}: {figure.caption}", figure.svg) for part in parts for figure in part.figures]
    yield side_by_side([in_figure(caption, svg) for caption, svg in charts])
    machine = next(iter(checked.records.values()))["machine"]
    seeds = f"{checked.finding.seeds} seeds; " if checked.finding.seeds > 1 else ""
    time = f"{seeds}{checked.minutes:.1f} minutes, runs one after another"
    yield f"<p><small>{time}, {escape(str(machine['processor']))}</small></p>"


def _measured(checked: Checked) -> list[Measured]:
    """Return the results that have curves, each run's name before its tasks."""
    results = {path: record["result"] for path, record in checked.records.items()}
    curved = {path: value for path, value in results.items() if isinstance(value, Mapping) and "curves" in value}
    return [
        from_json({**value, "tasks": f"{path}, {value['tasks']}" if len(curved) > 1 else value["tasks"]}, where=path)
        for path, value in curved.items()
    ]


def markdown_table(checked: Sequence[Checked]) -> str:
    """Return a row for each finding, as the documentation has it."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for part in checked:
        here = "; ".join(f"{row.says}: {row.value} ({row.band}){_why_not(row)}" for row in part.outcomes())
        minutes = f"{part.minutes:.1f}" if part.records else "-"
        claim = f"{part.finding.paper.claim} ({part.finding.paper.source})"
        row = (part.file.stem, claim, here or "not run", part.verdict, minutes, f"`{part.command}`")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return "\n".join(lines) + "\n"


def _why_not(row: Outcome) -> str:
    """Return why a statement is known not to hold here, in brackets, behind one that does not."""
    return f" (not shown: {row.not_shown})" if row.not_shown and not row.holds else ""
