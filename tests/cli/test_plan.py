from __future__ import annotations

import json
import subprocess
import sys

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


def test_a_run_on_many_gpus_is_planned_as_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "gpt3-175b", "--gpus", "1024", "--gpu", "h100", "--parallel.tp", "8", "--parallel.pp", "8"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "layout: dp 1 x fsdp 16 x tp 8 x pp 8" in out
    assert "an assumption" in out
    assert main([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["chosen"]["layout"] == {"dp": 1, "fsdp": 16, "tp": 8, "pp": 8, "cp": 1}
    assert plan["chosen"]["memory"]["peak"] + plan["chosen"]["free_bytes"] == plan["usable_bytes"]


def test_a_run_is_planned_without_torch() -> None:
    code = (
        "import sys; from fewshot.cli.main import main; "
        "main('plan gpt3-175b --gpus 1024 --gpu h100'.split()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("words", ["--gpus 8", "--gpu h100", "--mfu 0.5", "--parallel.tp 2", "--gpus 8 --gpu h100"])
def test_a_plan_that_cannot_be_is_refused_in_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "gpt3-175b", *words.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1
