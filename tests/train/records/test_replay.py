"""A step that is computed again has the bits of the log, or is named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.train.records.replay import replay
from fewshot.train.run import start


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps with dropout and NorMuon, whose last checkpoints are of steps 24 and 30."""
    run = tmp_path_factory.mktemp("replay") / "run"
    given = tiny(
        n_steps=30,
        loop={"checkpoint_every": 12, "micro_rows": 3},
        model={"dropout": 0.2},
        optimizer={"name": "normuon", "lr": 1e-3},
    )
    list(start(given, run, say=quiet))
    return run


def content(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("step", [1, 30, *random.Random(0).sample(range(2, 30), 6)])
def test_any_step_computed_again_has_the_bits_of_the_log(finished: Path, step: int) -> None:
    before = content(finished)
    said: list[str] = []
    steps = list(replay(finished, step, say=said.append))
    first = 25 if step > 24 else 1  # the checkpoints of steps 24 and 30 are there
    assert said[-1] == f"replaying steps {first} to {step}"
    assert [replayed.logged.step for replayed in steps] == list(range(first, step + 1))
    assert all(replayed.is_same for replayed in steps)
    assert content(finished) == before


def test_a_step_whose_logged_bits_differ_is_named(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = finished / "receipt.jsonl"
    whole = receipt.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    lines[4]["loss"] = (float.fromhex(lines[4]["loss"]) * (1 + 2**-23)).hex()
    try:
        receipt.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert main(["replay", str(finished), "--step", "7"]) == 1
        assert capsys.readouterr().out.startswith("step 5 differs: loss 0x1.")
        assert main(["replay", str(finished), "--step", "4"]) == 0
        assert "step 4 has the bits of the log, and so have the 3 replayed before it" in capsys.readouterr().out
    finally:
        receipt.write_text(whole)


def test_a_damaged_checkpoint_is_passed_over(finished: Path) -> None:
    weights = finished / "checkpoints" / "step-00000024" / "model.safetensors"
    whole = weights.read_bytes()
    said: list[str] = []
    try:
        weights.write_bytes(whole[:-1])
        steps = list(replay(finished, 26, say=said.append))
    finally:
        weights.write_bytes(whole)
    assert said[-1] == "replaying steps 1 to 26"
    assert steps[-1].is_same


def test_a_step_that_the_run_has_not_done_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadValue, match=r"step 31 is not in .*receipt.jsonl: it has 1 to 30"):
        list(replay(finished, 31, say=quiet))
    assert main(["replay", str(finished), "--step", "0"]) == 2
    assert main(["resume", str(finished), "--verify"]) == 0
    assert "steps 1 to 30 have read 120 rows, each its own batch" in capsys.readouterr().out
    assert main(["resume", str(finished), "--verify", "--loop.log_every", "3"]) == 2
