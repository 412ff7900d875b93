"""The plan of a run's memory is what the run takes, in a process of its own."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from fewshot.bench.plan import ALLOWED, LAYOUTS, SHAPES, compare, comparison_rows, planned_kinds, summary
from fewshot.cli.main import main
from fewshot.model.footprint.layout import Layout, why_not
from fewshot.model.footprint.memory import Work, footprint

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.slow
@linux
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_one_process_takes_what_was_planned(recompute: str) -> None:
    ratios = compare("wide", "alone", recompute)["ratios"]
    assert ratios["peak"] == pytest.approx(1, abs=ALLOWED["peak"])
    assert all(ratio == pytest.approx(1, abs=ALLOWED["kind"]) for ratio in ratios.values())


RESIDENT = """
import os
from fewshot.bench.memory import resident
before, size = resident("VmRSS"), 64 * 2**20
block = bytearray(os.urandom(2**20) * 64)  # with a copy
assert before + size * 0.9 < resident("VmRSS") < before + size * 3.5
del block
assert resident("VmHWM") >= before + size * 0.9
assert resident("VmRSS") < before + size * 0.9
"""


@linux
def test_resident_memory_counts_what_is_touched_and_remembers_the_most() -> None:
    # In a process of its own: this one may take memory that earlier tests have left.
    subprocess.run([sys.executable, "-c", RESIDENT], check=True, timeout=120)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_shape_can_be_divided_by_every_layout(shape: str, layout: str) -> None:
    assert why_not(LAYOUTS[layout], SHAPES[shape][0]) is None


def test_a_step_is_the_peak_without_what_lasts_and_contains_the_activations() -> None:
    config, work = SHAPES["deep"]
    kinds = planned_kinds(footprint(config, Layout(), work))
    assert list(kinds) == ["weights", "gradients", "moments", "activations", "step", "peak"]
    assert kinds["step"] == kinds["peak"] - kinds["weights"] - kinds["gradients"] - kinds["moments"]
    assert 0 < kinds["activations"] < kinds["step"]
    first_stage = dataclasses.replace(footprint(config, Layout(pp=2), Work()), before_loss=0)
    assert planned_kinds(first_stage)["activations"] == 0


def row(ratios: dict[str, float]) -> dict[str, Any]:
    return {
        "shape": "even", "layout": "tp2", "recompute": "none", "ratios": ratios, "measured": {"peak": 2_000_000}
    }  # fmt: skip


def test_the_worst_ratios_are_told_and_those_outside_of_what_is_allowed_are_named() -> None:
    result = summary([row({"weights": 1.0, "step": 0.86, "peak": 1.09}), row({"weights": 1.16, "peak": 0.89})])
    assert result["peak_off_by_at_most"] == pytest.approx(0.11)
    assert result["kind_off_by_at_most"] == pytest.approx(0.16)
    assert result["outside"] == [
        "even, tp2, recompute none: weights 1.160",
        "even, tp2, recompute none: peak 0.890",
    ]
    columns, rows = comparison_rows(result)
    assert columns == [
        "shape", "layout", "recompute", "weights", "gradients", "moments", "activations", "step", "peak",
        "measured peak",
    ]  # fmt: skip
    assert rows[0] == ("even", "tp2", "none", "1.000", "", "", "", "0.860", "1.090", "2 MB")


@pytest.mark.parametrize("option", ["--shapes round", "--layouts tp3", "--recompute half"])
def test_an_unknown_name_is_refused_before_anything_is_measured(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "plan", *option.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "allowed: " in error
