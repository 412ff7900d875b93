from __future__ import annotations

import json

import pytest

from fewshot.cli.main import main


def test_plan_prints_counts_as_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "gpt3-175b"]) == 0
    out = capsys.readouterr().out
    assert "174,604,259,328" in out
    assert "alternate(dense, banded(256)): gpt3-175b" in out
    assert "a vocabulary of 50,257: gpt3-175b" in out
    assert main(["plan", "all", "--json"]) == 0
    plans = {plan["name"]: plan for plan in json.loads(capsys.readouterr().out)}
    assert (plans["gpt3-13b"]["n_parameters"], plans["gpt3-13b"]["n_vocab"]) == (12_853_386_240, 50257)
    assert len([name for name in plans if name.startswith(("gpt2", "gpt3"))]) == 12
