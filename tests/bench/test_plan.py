"""The plan of a run's memory is what the run takes, in a process of its own."""

from __future__ import annotations

import sys

import pytest

from fewshot.bench.memory import resident
from fewshot.bench.plan import compare


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_one_process_takes_what_was_planned(recompute: str) -> None:
    assert resident("VmHWM") >= resident("VmRSS") > 0
    ratios = compare("wide", "alone", recompute)["ratios"]
    assert ratios["peak"] == pytest.approx(1, abs=0.10)
    assert all(ratio == pytest.approx(1, abs=0.15) for ratio in ratios.values())
