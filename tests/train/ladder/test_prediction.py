"""The prediction: written before the largest run, hashed, and never made afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.train.ladder.law import Expected
from fewshot.train.ladder.prediction import compare, predict, read_prediction
from fewshot.train.ladder.series import Ladder, measure
from fewshot.train.run import resume

TrainRun = Callable[[Path], None]


def test_the_smaller_runs_predict_the_largest_and_its_whole_curve(smaller_done: Ladder, train_run: TrainRun) -> None:
    prediction = predict(smaller_done)
    assert [run.name for run in prediction.measured] == ["1-of-4", "2-of-4", "3-of-4"]
    assert prediction.measured == tuple(measure(run) for run in smaller_done.runs[:-1])
    size = measure(smaller_done.runs[-1]).n_block_parameters
    assert prediction.loss == prediction.of_size.expected(size)
    assert prediction.curve[-1].value == pytest.approx(prediction.loss.value)
    assert prediction.shares == tuple(i / 20 for i in range(1, 21))
    train_run(smaller_done.runs[-1])
    outcome = compare(prediction, measure(smaller_done.runs[-1]))
    assert abs(outcome.error) < 0.1
    assert outcome.is_inside == (prediction.loss.low <= outcome.loss <= prediction.loss.high)


def test_the_law_over_compute_goes_through_the_same_losses(smaller_done: Ladder) -> None:
    prediction = predict(smaller_done)
    for run in prediction.measured:
        by_size = prediction.of_size.expected(run.n_block_parameters).value
        by_compute = prediction.of_compute.expected(run.compute(run.n_tokens)).value
        assert by_size == pytest.approx(run.losses[-1], rel=0.05)
        assert by_compute == pytest.approx(by_size, rel=0.02)


def test_a_prediction_is_written_once_with_a_hash_that_other_tools_check(smaller_done: Ladder) -> None:
    first = predict(smaller_done)
    content = smaller_done.prediction.read_bytes()
    done = subprocess.run(
        ["sha256sum", "--check", "prediction.json.sha256"], cwd=smaller_done.folder, capture_output=True, text=True
    )
    assert done.stdout == "prediction.json: OK\n"
    assert hashlib.sha256(content).hexdigest() in (smaller_done.folder / "prediction.json.sha256").read_text()
    assert predict(smaller_done) == first
    assert smaller_done.prediction.read_bytes() == content


def test_a_prediction_that_was_changed_is_refused(smaller_done: Ladder) -> None:
    predict(smaller_done)
    text = smaller_done.prediction.read_text()
    smaller_done.prediction.write_text(text.replace('"value": ', '"value": 1', 1))
    with pytest.raises(BadFile, match="is not what was written before the run"):
        read_prediction(smaller_done)


def test_a_kill_between_the_prediction_and_its_hash_is_mended_only_before_the_run(
    smaller_done: Ladder, train_run: TrainRun
) -> None:
    predict(smaller_done)
    hashed = smaller_done.folder / "prediction.json.sha256"
    content = hashed.read_bytes()
    hashed.unlink()
    read_prediction(smaller_done)
    assert hashed.read_bytes() == content
    hashed.unlink()
    train_run(smaller_done.runs[-1])
    with pytest.raises(BadFile, match="does not exist"):
        read_prediction(smaller_done)


def test_nothing_is_predicted_of_a_run_that_has_begun(smaller_done: Ladder) -> None:
    reports = resume(smaller_done.runs[-1], say=lambda line: None)
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    with pytest.raises(BadValue, match="has begun without a prediction"):
        predict(smaller_done)
    assert not smaller_done.prediction.exists()


def test_nothing_is_predicted_from_runs_that_are_not_complete(new_ladder: Ladder) -> None:
    with pytest.raises(BadValue, match="1-of-4 is not complete: fewshot resume"):
        predict(new_ladder)


def test_errors_are_those_worked_by_hand(smaller_done: Ladder) -> None:
    prediction = predict(smaller_done)
    size = dataclasses.replace(prediction.measured[-1], losses=(3.0, 2.2), tokens=(50, 100), n_tokens=100)
    prediction = dataclasses.replace(
        prediction,
        measured=(size,),
        loss=Expected(value=2.1, low=1.9, high=2.2),
        shares=(0.01, 0.5, 1.0),
        curve=tuple(Expected(value=value, low=1.0, high=9.0) for value in (99.0, 2.8, 2.1)),
    )
    largest = dataclasses.replace(size, losses=(2.856, 2.0), warmup_tokens=2)
    outcome = compare(prediction, largest)
    assert outcome.loss == 2.0
    assert outcome.error == pytest.approx(0.05)
    assert outcome.gap_share == pytest.approx(0.5)
    assert outcome.is_inside
    assert outcome.worst_on_curve == pytest.approx(0.1 / 2.1)  # of the end; the point within the warm-up is left out
    assert not compare(prediction, dataclasses.replace(largest, losses=(2.8, 1.8))).is_inside
