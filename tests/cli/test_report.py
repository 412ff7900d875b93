from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fewshot.cli.main import main


@pytest.fixture
def run(tmp_path: Path, small_run: Path) -> Path:
    return Path(
        shutil.copytree(
            small_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations", "data", "report.html")
        )
    )


ROWS = {
    "no tokens": {"step": 1, "loss": 2.0, "seconds": 1.0},
    "tokens in words": {"step": 1, "tokens": "many", "loss": 2.0, "seconds": 1.0},
    "no seconds": {"step": 1, "tokens": 5, "loss": 2.0},
    "a loss in words": {"step": 1, "tokens": 5, "loss": "low", "seconds": 1.0},
    "a list for a loss": {"step": 1, "tokens": 5, "val_loss": [1], "seconds": 1.0},
    "nothing": {},
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_of_metrics_without_its_numbers_is_one_line(run, row, capsys):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert main(["report", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "metrics.jsonl" in line
    assert not (run / "report.html").exists()


def test_results_of_other_weights_than_the_runs_are_not_on_its_page(run, capsys):
    words = ["evaluate", str(run), "--tasks", "hidden_letter", "--shots", "0,1", "--limit", "5"]
    assert main(words) == 0
    (path,) = (run / "evaluations").glob("step-*/hidden_letter.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "of a former training"}))
    assert main(["report", str(run)]) == 0
    assert "hidden_letter" not in (run / "report.html").read_text()
    assert "1 of 1 files of results are not shown: the run no longer holds their weights" in capsys.readouterr().err
    before = path.read_bytes()
    assert main(words) == 0
    assert path.read_bytes() == before
    assert main(["report", str(run)]) == 0
    assert "hidden_letter" in (run / "report.html").read_text()


def test_a_page_says_shares_in_per_cent_in_table_and_figure(run):
    assert main(["evaluate", str(run), "--tasks", "hidden_letter", "--shots", "0,1", "--limit", "5"]) == 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "<td>accuracy (%)</td>" in page
    assert ">100%</text>" in page
