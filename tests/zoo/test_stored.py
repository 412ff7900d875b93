"""Stored results are those of the finding as it is, and a better one is not replaced by a worse one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.zoo.test_finding import finding

from fewshot.base.config import to_plain
from fewshot.base.errors import BadFile
from fewshot.zoo.stored import read_stored, store, stored_path

FINDING = finding(runs={"few": {"n_known": 4}})


def records(x: float) -> dict[str, dict[str, Any]]:
    return {
        "few": {"asked": to_plain(FINDING.tasks()["few"]), "result": {"x": x}, "seconds": 2.0, "machine": {"cores": 2}}
    }


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "rare.yaml"
    assert store(file, FINDING, records(2))
    assert stored_path(file) == tmp_path / "results" / "rare.json"
    assert read_stored(file, FINDING) == records(2)


def test_results_in_which_all_holds_stay_until_all_holds_again(tmp_path: Path) -> None:
    file = tmp_path / "rare.yaml"
    assert store(file, FINDING, records(0))  # nothing to lose
    assert store(file, FINDING, records(0.5))
    assert store(file, FINDING, records(1))
    assert not store(file, FINDING, records(0))
    assert read_stored(file, FINDING) == records(1)
    assert store(file, FINDING, records(3))


def test_missing_foreign_and_outdated_results_are_told(tmp_path: Path) -> None:
    file = tmp_path / "rare.yaml"
    with pytest.raises(BadFile, match=r"rare.json is not there: make it with 'fewshot verify"):
        read_stored(file, FINDING)
    store(file, FINDING, records(1))
    with pytest.raises(BadFile, match=r"was made with other settings \(few, many\)"):
        read_stored(file, finding(runs={"many": {}}))
    with pytest.raises(BadFile, match=r"was made with other settings \(few\)"):
        read_stored(file, finding(runs={"few": {"n_known": 5}}))
    stored_path(file).write_text("[1]")
    with pytest.raises(BadFile, match="holds no results of 'fewshot verify'"):
        read_stored(file, FINDING)
