"""A run's receipt names the first step that has not read its own batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot.base.errors import BadFile
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import find_checkpoint
from fewshot.dataset.prepare import load_tokens, training_mixture
from fewshot.train.records.receipt import first_link, keep_until, next_link, read_receipt
from fewshot.train.records.replay import verify_run
from fewshot.train.run import read_run_config, resume, start
from fewshot.train.schedule import Step

N_STEPS = 90


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 90 steps of 4 rows, stopped and gone on once, over more than one pass of its text."""
    run = tmp_path_factory.mktemp("receipt") / "run"
    reports = start(tiny(n_steps=N_STEPS, loop={"checkpoint_every": 20}), run, say=quiet)
    for _ in range(33):
        next(reports)
    reports.close()  # type: ignore[attr-defined]
    list(resume(run, say=quiet))
    return run


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edit(run: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    lines = [json.loads(line) for line in (run / "receipt.jsonl").read_text().splitlines()]
    change(lines)
    (run / "receipt.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_that_was_stopped_has_a_line_for_each_step_and_repeats_are_counted(finished: Path) -> None:
    assert [entry.step for entry in read_receipt(finished / "receipt.jsonl")] == list(range(1, N_STEPS + 1))
    config = read_run_config(finished)
    mixture = training_mixture(config.data, load_tokens(config.data, finished / "data"), n_ctx=16, seed=0)
    verified = verify_run(finished)
    assert (verified.first_step, verified.last_step, verified.n_rows) == (1, N_STEPS, 4 * N_STEPS)
    samples = np.stack(mixture.locate(np.arange(4 * N_STEPS)), axis=1)
    assert verified.n_repeated == 4 * N_STEPS - len(np.unique(samples, axis=0)) > 0
    assert verified.n_checkpoints == 2
    assert find_checkpoint(finished).counters["chain"] == read_receipt(finished / "receipt.jsonl")[-1].chain


def test_losses_are_those_of_the_log_to_the_last_bit(finished: Path) -> None:
    logged = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for line, entry in zip(logged, read_receipt(finished / "receipt.jsonl"), strict=True):
        assert (line["step"], line["loss"].hex(), line["grad_norm"].hex()) == (entry.step, entry.loss, entry.grad_norm)


@pytest.mark.parametrize("step", [1, 2, 47, 90])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines, i: lines[i].update(chain="0" * 64), "read other samples than those of its batch"),
        (lambda lines, i: lines[i].update(first_row=lines[i]["first_row"] + 1), "but its batch is rows"),
        (lambda lines, i: lines[i].update(n_rows=3), "but its batch is rows"),
        (lambda lines, i: lines.insert(i + 1, dict(lines[i])), "is missing"),
    ],
)
def test_a_batch_that_was_changed_or_doubled_is_found_and_its_step_named(
    copy: Path, step: int, change: Callable[..., object], message: str
) -> None:
    edit(copy, lambda lines: change(lines, step - 1))
    named = step + 1 if message == "is missing" else step
    with pytest.raises(BadFile, match=rf"step {named} .*{message}"):
        verify_run(copy)


@pytest.mark.parametrize("step", [2, 47, 89])
def test_a_batch_that_was_left_out_is_found_and_its_step_named(copy: Path, step: int) -> None:
    edit(copy, lambda lines: lines.pop(step - 1))
    with pytest.raises(BadFile, match=rf"step {step} is missing: after {step - 1} comes {step + 1}"):
        verify_run(copy)


def test_a_chain_depends_on_every_sample_before(finished: Path) -> None:
    config = read_run_config(finished)
    mixture = training_mixture(config.data, load_tokens(config.data, finished / "data"), n_ctx=16, seed=0)
    other = training_mixture(config.data, load_tokens(config.data, finished / "data"), n_ctx=16, seed=1)
    steps = [Step(number=n, first_row=4 * n - 4, n_rows=4, lr_fraction=1.0) for n in (1, 2)]
    moved = Step(number=1, first_row=1, n_rows=4, lr_fraction=1.0)

    def chain(mixture: Any, first: Step) -> str:
        link, _ = next_link(first_link(mixture), mixture, first)
        return next_link(link, mixture, steps[1])[0]

    assert len({chain(mixture, steps[0]), chain(mixture, moved), chain(other, steps[0])}) == 3
    assert chain(mixture, steps[0]) == read_receipt(finished / "receipt.jsonl")[1].chain


def test_a_checkpoint_of_other_samples_is_named(copy: Path) -> None:
    edit(copy, lambda lines: lines.__delitem__(slice(-3, None)))
    with pytest.raises(BadFile, match=r"step-00000090 was trained on other samples than .* up to step 90"):
        verify_run(copy)


def test_a_line_that_a_kill_cut_is_left_out_and_any_other_is_named(copy: Path) -> None:
    whole = (copy / "receipt.jsonl").read_bytes()
    (copy / "receipt.jsonl").write_bytes(whole[:-20])
    assert [entry.step for entry in read_receipt(copy / "receipt.jsonl")][-1] == N_STEPS - 1
    (copy / "receipt.jsonl").write_bytes(whole.replace(b'"step": 7,', b'"step": "x",'))
    with pytest.raises(BadFile, match=r"line 7.*not a line of a receipt"):
        read_receipt(copy / "receipt.jsonl")


def test_steps_that_are_done_again_lose_their_lines(copy: Path) -> None:
    keep_until(copy / "receipt.jsonl", 40)
    assert [entry.step for entry in read_receipt(copy / "receipt.jsonl")] == list(range(1, 41))
    keep_until(copy / "none.jsonl", 3)
    assert not (copy / "none.jsonl").exists()


def test_a_run_of_an_older_version_goes_on_with_a_receipt_of_its_own(copy: Path, tiny: Any) -> None:
    run = RunFolder(copy)
    shutil.rmtree(run.checkpoint(90))
    edit(copy, lambda lines: lines.clear())
    with pytest.raises(BadFile, match="has no lines"):
        verify_run(copy)
    list(resume(copy, say=quiet))
    verified = verify_run(copy)
    assert (verified.first_step, verified.last_step) == (81, 90)
