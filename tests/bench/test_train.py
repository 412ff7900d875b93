"""Sides that take turns, and the ratios made of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadValue
from fewshot.bench import train
from fewshot.bench.train import measure, started, summary

COUNTS = """
import sys
print('{"at": 0}', flush=True)
for line in sys.stdin:
    print('{"at": %d}' % int(line), flush=True)
"""
FAILS = "import sys\nprint('{}', flush=True)\nsys.stdin.readline()\nsys.exit('first\\nthe last words')"


def turns_of(*seconds: float, **parts: float) -> list[dict[str, Any]]:
    return [{"seconds": value, "parts": parts} for value in seconds]


def test_ratios_are_of_the_medians_of_all_turns() -> None:
    turns = {
        "ours": turns_of(9.0, 2.0, 1.0, data=0.5, backward=1.5),
        "products float32": turns_of(3.0, 3.0, 3.0, linear=2.5),
        "products bfloat16": turns_of(1.0, 1.5, 9.0, linear=1.25),
        "a peer": turns_of(5.0, 4.0, 9.0),
    }
    row = {"precision": "bfloat16"}
    result = summary(turns, ready={"flops": {"linear": 5e9}}, row=row, n_tokens=100)
    assert result["tokens_per_second"] == 50
    assert result["share_of_products"] == 0.75
    assert result["parts"] == {"data": 0.25, "backward": 0.75}
    assert result["products"]["bfloat16"] == {"seconds": 1.5, "linear_gflops_per_second": 4.0}
    assert result["peers"] == [{"peer": "a peer", "tokens_per_second": 20, "ratio": 2.5}]
    assert "normuon" not in result


def test_a_side_answers_each_turn_and_is_gone_afterwards() -> None:
    with started("counter", [sys.executable, "-c", COUNTS], {}) as side:
        assert side.ready == {"at": 0}
        assert [side.turn(3), side.turn(5)] == [{"at": 3}, {"at": 5}]
        assert side.process.poll() is None
    assert side.process.poll() is not None


def test_a_side_that_fails_is_told_with_its_last_words() -> None:
    with started("counter", [sys.executable, "-c", FAILS], {}) as side:  # noqa: SIM117
        with pytest.raises(BadValue, match="side counter ended: the last words"):
            side.turn(1)


def test_a_folder_without_the_peer_is_refused_before_anything_starts(tmp_path: Path) -> None:
    said: list[str] = []
    for given, message in (({"nanogpt": tmp_path}, "no model.py"), ({"llmc_folder": tmp_path}, "no train_gpt2.c")):
        folders = {"nanogpt": None, "llmc_folder": None} | given
        with pytest.raises(BadValue, match=message):
            measure(["6x256"], rounds=1, first_steps=False, say=said.append, **folders)
    assert said == []


def test_a_small_model_is_measured_beside_its_products_and_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"n_layers": 2, "d_model": 32, "n_heads": 2, "n_ctx": 16, "n_vocab": 64, "n_rows": 2}
    monkeypatch.setitem(train.SHAPES, "tiny", shape)
    said: list[str] = []
    result = measure(["tiny"], rounds=2, nanogpt=None, llmc_folder=None, first_steps=False, say=said.append)
    (row,) = result["rows"]
    assert row.items() > shape.items()
    assert row["tokens_per_second"] > 0
    assert 0 < row["share_of_products"] < 1
    assert sum(row["parts"].values()) == pytest.approx(1)
    assert all(share > 0 for share in row["parts"].values())
    assert [peer["peer"] for peer in row["peers"]] == ["transformers eager float32"]
    assert said[-1] == "tiny: round 2 of 2"
