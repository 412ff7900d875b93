"""Every finding of the repository is whole, and its stored results say what its statements claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.zoo.finding import finding_files, read_finding
from fewshot.zoo.report import Checked, markdown_table
from fewshot.zoo.run import as_results
from fewshot.zoo.statements import outcomes
from fewshot.zoo.stored import read_stored, stored_path

ROOT = Path(__file__).parents[2]
ALL = finding_files([ROOT / "runs" / "zoo"])
NOT_RUN = {"band", "ladder"}  # their results are still to be made
FILES = [file for file in ALL if file.stem not in NOT_RUN]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_stored_results_are_those_of_the_finding_and_its_statements_hold(file: Path) -> None:
    finding = read_finding(file)
    records = read_stored(file, finding)
    assert [outcome for outcome in outcomes(finding, as_results(records)) if outcome.fails] == []


def test_nothing_is_stored_of_a_finding_that_is_not_there() -> None:
    assert set((ROOT / "runs" / "zoo" / "results").glob("*")) == {stored_path(file) for file in FILES}


def test_the_table_of_the_documentation_is_the_one_that_the_command_prints() -> None:
    findings = {file: read_finding(file) for file in ALL}
    stored = [
        Checked(file.relative_to(ROOT), finding, read_stored(file, finding) if file in FILES else {})
        for file, finding in findings.items()
    ]
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8").endswith(markdown_table(stored))
