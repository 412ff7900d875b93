from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command on a small run, whose context is too short for some of the questions."""
    torch.manual_seed(0)
    Bytes().save(tmp_path / "run" / "tokenizer.json")
    save(tmp_path / "run", GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, n_ctx=36, n_vocab=257)), step=2)
    (tmp_path / "text.txt").write_text("Q: What is 98 plus 45?\n\nA: 143\n\n" * 9)
    text = ["--text", str(tmp_path / "text.txt")]
    return ["contamination", str(tmp_path / "run"), "--tasks", "arithmetic_2d_add", *text]


def test_evidence_lies_beside_the_results_and_a_smaller_one_replaces_none(tmp_path, words, capsys):
    for limit in ("9", "4"):
        assert main([*words, "--limit", limit]) == 0
    path = tmp_path / "run" / "evaluations" / "step-00000002" / "contamination" / "arithmetic_2d_add.json"
    stored = json.loads(path.read_text())["results"]
    assert [len(one["split"]["clean"]) + len(one["split"]["dirty"]) for one in stored] == [4, 9]
    assert f"evidence and figure are in {path.parent}" in capsys.readouterr().err


def test_out_takes_the_evidence_and_leaves_the_run_alone(tmp_path, words):
    before = sorted((tmp_path / "run").rglob("*"))
    assert main([*words, "--limit", "4", "--out", str(tmp_path / "out")]) == 0
    assert sorted((tmp_path / "run").rglob("*")) == before
    assert (tmp_path / "out" / "step-00000002" / "contamination" / "figure.svg").is_file()


def test_why_fewer_are_measured_than_compared_is_said(words, capsys):
    assert main([*words, "--limit", "60", "--json"]) == 0
    seen = capsys.readouterr()
    found = json.loads(seen.out)["arithmetic_2d_add"]
    n_long = 60 - found["scores"][0]["all"]["n"]
    assert 0 < n_long < 60
    assert (
        f"{n_long} of 60 questions are compared but not measured: they are too long for the model's context of 36"
        in seen.err
    )
