"""The benches run, and their ratios are of what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.cli.main import main


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
