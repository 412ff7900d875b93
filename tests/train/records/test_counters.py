from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import DamagedCheckpoint
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.model.config import GPTConfig
from fewshot.train.records.counters import Counters, History, counters_of
from fewshot.train.records.metrics import StepMetrics

REPORT = StepMetrics(
    step=3, n_steps=9, tokens=48, loss=None, lr_fraction=0.5, grad_norm=1.25, seconds=2.0, tokens_per_second=24.0
)
FULL = Counters(rows=3, tokens=48, seconds=2.0, chain="ab", guard=History(losses=(3.5, 3.25), skipped=1), report=REPORT)


def checkpoint(counters: dict[str, Any]) -> Checkpoint:
    config = GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=4, n_vocab=5)
    return Checkpoint(path=Path("run/checkpoints/step-00000003"), step=3, config=config, counters=counters)


def test_counters_come_back_as_they_were() -> None:
    assert counters_of(checkpoint(FULL.plain())) == FULL


def test_those_of_an_older_version_lack_what_it_did_not_know() -> None:
    assert counters_of(checkpoint({"rows": 21, "tokens": 84, "seconds": 0.5})) == Counters(
        rows=21, tokens=84, seconds=0.5
    )


@pytest.mark.parametrize(
    "change",
    [
        {"rows": None},
        {"rows": "many"},
        {"seconds": []},
        {"guard": {"losses": [None]}},
        {"guard": 3},
        {"report": {"step": 1}},
    ],
)
def test_counters_that_no_run_has_written_are_damage(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"step-00000003: .*counters"):
        counters_of(checkpoint({**FULL.plain(), **change}))


def test_without_its_rows_a_run_cannot_go_on() -> None:
    with pytest.raises(DamagedCheckpoint, match="rows"):
        counters_of(checkpoint({"seconds": 0.5}))
