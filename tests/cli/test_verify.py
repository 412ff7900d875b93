"""`fewshot verify` and `fewshot zoo` on a finding of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.cli.main import main

TINY = """
title: Linear functions are learned in context
paper: {claim: A Transformer learns linear functions in context., source: "Garg et al. 2022, Figure 2"}
minutes: 0.2
command: meta regression
config:
  reader: {n_layers: 1, d_model: 16, n_heads: 2}
  outer: {n_iterations: 2, report_every: 1}
  learner: {name: context}
  test_tasks: 20
runs: {lines: }
expect:
  - {value: "lines.curves[learner=least squares].points[n_examples=10]", at_most: 1e-6, says: least squares is exact}
  - {value: "lines.curves[learner=context].points[n_examples=0]", at_most: BOUND, says: error without examples}
"""


def test_findings_are_run_stored_checked_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my" / "lines.yaml"
    file.parent.mkdir()
    file.write_text(TINY.replace("BOUND", "100"))
    assert main(["verify", "my", "--stored"]) == 1
    assert "FAILS  my/results/lines.json is not there: make it with 'fewshot verify" in capsys.readouterr().out
    assert main(["verify", "my", "--store", "--jobs", "1"]) == 0
    assert "2 of 2 statements hold, in 1 findings" in capsys.readouterr().out
    assert main(["verify", "my/lines.yaml", "--stored", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["finding"], row["holds"], len(row["statements"])) == ("lines", True, 2)
    assert main(["zoo", "report", "my"]) == 0
    assert "Garg et al. 2022, Figure 2" in (tmp_path / "zoo.html").read_text()
    assert main(["zoo", "table", "my"]) == 0
    assert "| yes |" in capsys.readouterr().out
    file.write_text(TINY.replace("BOUND", "0.001"))  # a statement may change, what was run is the same
    assert main(["verify", "my", "--stored"]) == 1
    assert "  FAILS  error without examples: " in capsys.readouterr().out
    assert main(["verify", "my", "--store"]) == 1  # nothing is run: it is done
    file.write_text(TINY.replace("BOUND", "100").replace("least squares]", "most squares]"))
    assert main(["verify", "my"]) == 1
    assert "no row has learner most squares, there are 'context', 'least squares'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "nowhere"], "nowhere does not exist"),
        (["verify", "--stored", "--store"], "leave one out"),
        (["verify", "--jobs", "0"], "--jobs is 0, allowed: 1 to 256"),
        (["zoo", "report", "nowhere"], "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_fails_is_a_statement_that_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lines.yaml"
    file.write_text(TINY.replace("BOUND", "1").replace("n_layers: 1", "n_layers: 0"))
    assert main(["verify", str(file), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "FAILS  lines: lines: 'fewshot meta regression" in captured.out
    assert "n_layers" in captured.out
