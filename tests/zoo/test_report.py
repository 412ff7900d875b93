"""The page and the table show each finding, run or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.zoo.test_finding import finding
from tests.zoo.test_stored import FINDING, records

from fewshot.meta.curves import Curve, Measured, Point, to_json
from fewshot.zoo.report import Checked, markdown_table, write_zoo


def curves() -> dict[str, object]:
    points = tuple(Point(n_examples=k, mean=1 / (k + 1), low=0.1, high=1.0, n=5) for k in range(3))
    return to_json(
        Measured(tasks="lines", quantity="error", curves=(Curve(learner="context", kind="context", points=points),))
    )


def test_the_page_has_claims_statements_and_figures(tmp_path: Path) -> None:
    given = {**records(2), "many": {"result": curves(), "seconds": 58.0, "machine": {"processor": "a <chip>"}}}
    given["few"]["machine"] = {"processor": "a <chip>"}
    bad = finding(title="A <wrong> title")
    write_zoo(
        tmp_path / "zoo.html",
        [
            Checked(Path("runs/zoo/few.yaml"), FINDING, given),
            Checked(Path("runs/zoo/more.yaml"), FINDING, given),
            Checked(Path("runs/zoo/none.yaml"), bad, {}),
        ],
    )
    page = (tmp_path / "zoo.html").read_text()
    assert page.count("<svg") == 2
    assert page.count('id="lines-examples"') <= 1  # names of figures are told apart
    assert "A &lt;wrong&gt; title" in page
    assert "Not run yet." in page
    assert "a &lt;chip&gt;" in page
    assert "<th>holds</th><td>few.x</td><td>2</td><td>at least 1</td>" in page
    assert "lines: error against examples of the new task" in page


def test_the_table_has_a_row_for_each() -> None:
    table = markdown_table(
        [Checked(Path("a|b.yaml"), FINDING, records(0)), Checked(Path("runs/none.yaml"), finding(), {})]
    )
    assert table.splitlines()[2:] == [
        "| a\\|b | A claim. (Someone 2020) | few.x: 0 (at least 1) | 0 of 1 | 0.0 | `fewshot verify a\\|b.yaml` |",
        "| none | A claim. (Someone 2020) | not run | not run | - | `fewshot verify runs/none.yaml` |",
    ]


@pytest.mark.parametrize(
    ("value", "told"), [(0.0, "few.x: 0 (at least 1) (not shown: too small)"), (2.0, "few.x: 2 (at least 1)")]
)
def test_why_a_statement_is_not_shown_is_told_where_it_does_not_hold(value: float, told: str) -> None:
    (statement,) = FINDING.expect
    known = replace(FINDING, expect=(replace(statement, not_shown="too small"),))
    table = markdown_table([Checked(Path("a.yaml"), known, records(value))])
    assert f"| {told} |" in table
