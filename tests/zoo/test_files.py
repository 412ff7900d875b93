"""Every finding is whole, its stored results say what it claims, and its statements fail where a wrong is planted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from circuits import induction_model

from fewshot.meta.experiment import configure, prepare
from fewshot.meta.tasks.rare import Classes, Sequences
from fewshot.probe.ablation import Head, ablated
from fewshot.probe.findings import Findings
from fewshot.probe.scores import score_heads
from fewshot.zoo.finding import finding_files, read_finding
from fewshot.zoo.report import Checked, markdown_table
from fewshot.zoo.run import as_results
from fewshot.zoo.statements import outcomes
from fewshot.zoo.stored import read_stored, stored_path

ROOT = Path(__file__).parents[2]
ALL = finding_files([ROOT / "runs" / "zoo"])
NOT_RUN: set[str] = set()  # findings whose results are still to be made
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


def outcome_of(name: str, value: str, results: dict[str, Any]) -> bool:
    """Return whether the statement about `value` in the finding of that name holds of results."""
    finding = read_finding(ROOT / "runs" / "zoo" / f"{name}.yaml")
    (statement,) = (statement for statement in finding.expect if statement.value == value)
    (outcome,) = outcomes(replace(finding, expect=(statement,)), results)
    return outcome.holds


@pytest.mark.parametrize("zeroed", [(), (Head(0, 0),)], ids=["whole", "a head is zeroed"])
def test_the_statement_about_the_copying_head_fails_where_the_one_before_is_zeroed(
    zeroed: tuple[Head, ...],
) -> None:
    model, text = induction_model(n_layers=2), [3, 1, 4, 1, 5, 3, 1, 4, 2, 5]
    with ablated(model, zeroed):
        scores = score_heads(model, [text])
    plain = Findings(model="by hand", step=0, scored_on="", heads=scores).to_json()
    results = {"heads": {str(seed): plain for seed in range(5)}}
    assert outcome_of("heads", "heads.*.copying_head.induction", results) is not bool(zeroed)


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [False, True], ids=["whole", "labels are shuffled in training"])
def test_the_statement_about_new_classes_fails_where_labels_are_shuffled(
    shuffled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Classes.training

    def drawn(classes: Classes, n: int, generator: torch.Generator) -> Sequences:
        sequences = draw(classes, n, generator)
        order = torch.rand(sequences.labels.shape, generator=generator).argsort(1)
        return replace(sequences, labels=sequences.labels.take_along_dim(order, 1)) if shuffled else sequences

    monkeypatch.setattr(Classes, "training", drawn)
    given = read_finding(ROOT / "runs" / "zoo" / "rare.yaml").tasks()["many"].config
    outer = {**given["outer"], "n_iterations": 200}
    experiment = prepare("rare", configure("rare", {**given, "seeds": 1, "outer": outer, "test_sequences": 500}))
    history = {name: list(loop.run(partial(experiment.watch, name))) for name, loop in experiment.loops.items()}
    holds = outcome_of("rare", "many.history.context_*[iteration=200].new", {"many": {"history": history}})
    assert holds is not shuffled
