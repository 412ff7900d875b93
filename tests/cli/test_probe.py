from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fewshot.cli.main import main


@pytest.fixture
def run(tmp_path: Path, small_run: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations", "data")))


def probed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert main(["probe", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_probed_in_one_command_and_its_page_names_the_highest_head(run, capsys):
    assert main(["probe", str(run)]) == 0
    out = capsys.readouterr().out
    assert all(f"L{layer}H{head}" in out for layer in range(2) for head in range(2))
    assert "novel_symbols" in out
    page = (run / "probe.html").read_text()
    assert out.splitlines()[-1] == str(run / "probe.html")
    assert out.splitlines()[-2].split(":")[0] in page


def test_named_heads_are_ablated_in_every_task_with_its_own_shots(run, capsys):
    words = ["--task", "novel_symbols,hidden_letter", "--shots", "3,1", "--ablate", "L1H0", "l0h1", "--limit", "6"]
    plain = probed([str(run), *words], capsys)
    first, second = plain["tasks"]
    assert [(task["task"], task["shots"], task["n"]) for task in (first, second)] == [
        ("novel_symbols", 3, 6),
        ("hidden_letter", 1, 6),
    ]
    assert list(first["ablated"]) == list(second["ablated"]) == ["L1H0", "L0H1"]
    assert [head["head"] for head in plain["heads"]] == ["L0H0", "L0H1", "L1H0", "L1H1"]


def test_what_is_asked_of_the_whole_model_is_what_evaluate_measures(run, capsys):
    plain = probed([str(run), "--task", "novel_symbols", "--shots", "3", "--limit", "40"], capsys)
    assert main(["evaluate", str(run), "--tasks", "novel_symbols", "--shots", "3", "--limit", "40", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert plain["tasks"][0]["accuracy"] == model["results"][0]["value"]


def test_all_checkpoints_are_scored_oldest_first(run, capsys):
    newest = max((run / "checkpoints").glob("step-*"))
    step = int(newest.name.removeprefix("step-"))
    plain = probed([str(run), "--checkpoints", "all", "--task", "novel_symbols", "--limit", "4"], capsys)
    assert [row["step"] for row in plain["steps"]][-1] == step == plain["step"]
    assert plain["steps"][-1]["heads"] == plain["heads"]
    assert plain["steps"][-1]["accuracy"] == {"novel_symbols": plain["tasks"][0]["accuracy"]}
    assert plain["steps"][-1]["distances"].keys() == {"uniform", "unigram", "copying"}
    assert newest.is_dir()
    of_checkpoint = probed([str(newest)], capsys)
    assert of_checkpoint["page"] == str(run / "probe.html")
    assert of_checkpoint["heads"] == plain["heads"]


def test_a_text_is_scored_and_drawn(run, capsys):
    plain = probed([str(run), "--text", "a b a <i>", "--out", str(run / "own.html")], capsys)
    assert plain["scored_on"] == "over the given text"
    assert "a b a &lt;i&gt;</pre>" in (run / "own.html").read_text()
    assert not (run / "probe.html").exists()


def test_a_gpt2_folder_of_another_program_is_probed_alike(run, tmp_path, monkeypatch, capsys):
    there = tmp_path / "hf"
    assert main(["convert", str(run), str(there)]) == 0
    monkeypatch.chdir(tmp_path)
    text = ["--text", "the cat sat on the cat"]
    ours, theirs = probed([str(run), *text], capsys), probed([f"hf:{there}", *text], capsys)
    assert (tmp_path / "probe.html").is_file()
    for one_of_ours, one_of_theirs in zip(ours["heads"], theirs["heads"], strict=True):
        assert one_of_theirs["induction"] == pytest.approx(one_of_ours["induction"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--task novel_symbol", "nearest: 'novel_symbols'"),
        ("--ablate L1H0", "--ablate needs a --task"),
        ("--task novel_symbols --ablate L9H0", "no head L9H0: its heads are L0H0 to L1H1"),
        ("--task novel_symbols --ablate 1.0", "such as L1H0"),
        ("--task novel_symbols --shots 1,2", "such as 16,8"),
        ("--task novel_symbols --shots few", "such as 16,8"),
        ("--limit 0", "must be at least 1"),
        ("--out mine.txt", "was not written by fewshot"),
    ],
)
def test_what_cannot_be_probed_is_one_line_before_anything_is_written(run, words, said, monkeypatch, capsys):
    monkeypatch.chdir(run)
    Path("mine.txt").write_text("mine")
    capsys.readouterr()
    assert main(["probe", ".", *words.split()]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fewshot:")]
    assert said in line
    assert not (run / "probe.html").exists()
    assert Path("mine.txt").read_text() == "mine"


def test_a_text_longer_than_the_context_is_refused(run, capsys):
    assert main(["probe", str(run), "--text", "a b " * 99]) == 2
    assert "32" in capsys.readouterr().err
