"""The benches run, and their ratios are of what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.bench.attention import check_equal
from fewshot.bench.hardware import machine
from fewshot.cli.main import main


def test_the_machine_is_named() -> None:
    hardware = machine()
    assert hardware["cores"] >= 1
    assert str(hardware["torch"]).startswith("2.")


def test_a_race_ends_when_the_loss_is_reached_and_both_sides_are_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, config, stored = tmp_path / "a.txt", tmp_path / "c.yaml", tmp_path / "r.json"
    text.write_text("abcd" * 3000)
    config.write_text(
        "data: {tokenizer: chars}\n"
        "model: {n_layers: 1, d_model: 16, n_heads: 2, n_ctx: 8}\n"
        "schedule: {n_tokens: 3200, batch_tokens: 32, batch_start_tokens: 32, ramp_tokens: 0}\n"
        "optimizer: {name: adamw, lr: 1e-2}\n"
        "loop: {validate_every: 10, compile: never}\n"
    )
    words = [
        "--config",
        str(config),
        "--text",
        str(text),
        "--until",
        "1.0",
        "--peer_steps",
        "30",
        "--json",
        str(stored),
    ]
    assert main(["bench", "train", "--race", *words]) == 0
    result = json.loads(stored.read_text())
    assert result["ours"]["val_loss"] <= 1.0
    assert result["ours"]["steps"] % 10 == 0
    assert result["peer"]["steps"] == 30
    assert result["peer"]["val_loss"] < 1.6
    assert result["ratio"] == pytest.approx(result["ours"]["seconds"] / result["peer"]["seconds"])
    assert result["machine"]["cores"] >= 1
    assert main(["bench", "train", "--race", *words[:-6], "--until", "0.0", "--peer_steps", "5"]) == 2
    assert "above 0.0: nothing to compare" in capsys.readouterr().err


def test_encoding_speed_is_a_ratio_of_two_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, tokenizer = tmp_path / "a.txt", tmp_path / "t.json"
    text.write_text("the cat sat on the mat " * 500)
    assert main(["tokenizer", "train", "--text", str(text), "--n_vocab", "280", "--out", str(tokenizer)]) == 0
    capsys.readouterr()
    assert main(["bench", "corpus", "--text", str(text), "--tokenizer", str(tokenizer)]) == 0
    result = json.loads(capsys.readouterr().out)
    rates = result["megabytes_per_second"]
    assert result["ratio"] == pytest.approx(rates["ours"] / rates["tiktoken"])
    assert result["megabytes"] == pytest.approx(len(text.read_bytes()) / 1e6)


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


@pytest.mark.parametrize("stored", ["[]", "{}", '{"bench": "attention"}', '{"machine": {"gpu": "none"}}'])
def test_a_file_that_is_no_result_cannot_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: str
) -> None:
    (tmp_path / "r.json").write_text(stored)
    assert main(["bench", "attention", "--show", str(tmp_path / "r.json")]) == 2
    assert "this is no result of fewshot bench attention" in capsys.readouterr().err


def test_missing_peers_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "attention", "--n", "256"]) == 2
    assert "peers are not installed: transformers, local_attention" in capsys.readouterr().err
