"""The attention bench runs, and its ratios are of what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.bench.attention import check_equal
from fewshot.cli.main import main


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # inductor's own
def test_the_attention_bench_compares_equal_things_and_stores_every_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "r.json"
    parts = ["against_dense", "growth", "whole_model"]
    assert main(["bench", "attention", "--n", "512", "--rounds", "1", "--parts", *parts, "--json", str(stored)]) == 0
    result = json.loads(stored.read_text())
    assert json.loads(capsys.readouterr().out) == result
    for row in result["against_dense"]:
        assert row["ratio"] == pytest.approx(row["dense_milliseconds"] / row["milliseconds"])
        assert row["fraction_of_limit"] == pytest.approx(row["ratio"] / row["flop_limit"])
    banded = next(row for row in result["against_dense"] if row["pattern"] == "banded(256)")
    assert banded["flop_limit"] == pytest.approx((512 * 513 / 2) / (512 * 256 - 256 * 255 / 2))
    assert {row["pattern"] for row in result["growth"]} >= {"banded(256)", "dense"}
    assert {row["pattern"] for row in result["whole_model"]} >= {"dense", "banded(256)"}


def test_a_peer_that_computes_something_else_is_found_out() -> None:
    with pytest.raises(BadValue, match="a peer computes something else"):
        check_equal(torch.zeros(3), torch.tensor([0.0, 0.0, 0.1]), "a peer")


def test_missing_peers_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "attention", "--n", "256"]) == 2
    assert "peers are not installed: transformers, local_attention" in capsys.readouterr().err
