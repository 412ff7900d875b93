from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.evaluate import run
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.load import load
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.store.results import ResultsStore, read_results
from fewshot.evaluate.tasks.table import make_task
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

SETTINGS = {"shots": (0, 2), "limit": 24, "seed": 0, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder with a small model of random weights that reads bytes."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    tokenizer = Bytes()
    model = GPT(GPTConfig(n_layers=2, d_model=32, n_heads=2, n_ctx=512, n_vocab=tokenizer.n_vocab, init_std=0.3))
    tokenizer.save(folder / "tokenizer.json")
    save(folder, model, step=3)
    return folder


def evaluated(where, folder, **changed):
    loaded = load(str(folder))
    settings = {**SETTINGS, **changed}
    task = settings.pop("task", make_task("novel_letters"))
    store = ResultsStore(root=where, weights="w", step=7)
    store.check(task)
    answered = run.evaluate(loaded.lm, loaded.tokenizer, task, store=store.answers(task), **settings)
    store.add(task, answered)
    return answered


def test_results_and_answers_are_kept_by_task_and_protocol(tmp_path, folder):
    answered = evaluated(tmp_path, folder)
    evaluated(tmp_path, folder, task=make_task("arithmetic_2d_add", protocol=HARNESS))
    own = tmp_path / "step-00000007"
    assert {file.name for file in own.glob("*.json")} == {"novel_letters.json", "arithmetic_2d_add.lm-eval.json"}
    assert [one for one in read_results(tmp_path) if one.protocol == "gpt3"] == [
        result for one in answered for result in one.results()
    ]
    rows = [json.loads(line) for line in (own / "answers" / "novel_letters.gpt3.jsonl").read_text().splitlines()]
    assert rows[0] == {"weights": "w"}
    assert len(rows) == 1 + 2 * 24
    assert {row["shots"] for row in rows[1:]} == {0, 2}  # how many demonstrations each prompt held


def test_an_evaluation_that_was_cut_off_goes_on_and_ends_the_same(tmp_path, folder, monkeypatch):
    evaluated(tmp_path / "whole", folder)
    answer, calls = run._answer, []

    def fails_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(*arguments)

    monkeypatch.setattr(run, "_answer", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "cut", folder)
    monkeypatch.undo()
    path = tmp_path / "cut" / "step-00000007" / "answers" / "novel_letters.gpt3.jsonl"
    kept = path.read_text()
    assert 1 < kept.count("\n") < 49
    path.write_text(kept + '{"asked": "cut off in the mid')
    asked, plain = [], run.Answerer.answers

    def counted(self, task, prompts):
        asked.append(len(prompts))
        return plain(self, task, prompts)

    monkeypatch.setattr(run.Answerer, "answers", counted)
    evaluated(tmp_path / "cut", folder)
    assert sum(asked) == 49 - kept.count("\n")
    for name in ("novel_letters.json", "answers/novel_letters.gpt3.jsonl"):
        cut, whole = (next((tmp_path / way).glob(f"step-*/{name}")) for way in ("cut", "whole"))
        assert cut.read_text() == whole.read_text()


def command(folder, *more: str) -> list[str]:
    return ["evaluate", str(folder), "--tasks", "novel_letters,arithmetic_2d_add", "--shots", "0,2", "--limit", "60",
            "--batch_size", "2", *more]  # fmt: skip


def test_an_evaluation_killed_half_way_and_started_again_gives_the_same_result_files(tmp_path, folder):
    once, twice = tmp_path / "once", tmp_path / "twice"
    base = [sys.executable, "-m", "fewshot.cli.main"]
    subprocess.run([*base, *command(folder, "--out", str(once))], check=True, capture_output=True)
    going = subprocess.Popen([*base, *command(folder, "--out", str(twice))], stderr=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)  # fmt: skip
    answers = twice / "step-00000003" / "answers" / "novel_letters.gpt3.jsonl"
    while going.poll() is None and not (answers.is_file() and answers.read_text().count("\n") > 20):
        time.sleep(0.01)
    going.send_signal(signal.SIGKILL)
    assert going.wait() == -signal.SIGKILL
    subprocess.run([*base, *command(folder, "--out", str(twice))], check=True, capture_output=True)
    for name in ("novel_letters.json", "arithmetic_2d_add.json"):
        assert (once / "step-00000003" / name).read_bytes() == (twice / "step-00000003" / name).read_bytes()


def test_two_processes_under_torchrun_give_what_one_gives(tmp_path, folder):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    subprocess.run([sys.executable, "-m", "fewshot.cli.main", *command(folder, "--out", str(alone))], check=True,
                   capture_output=True)  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*torchrun, "-m", "fewshot.cli.main", *command(folder, "--out", str(shared))],
                          capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("novel_letters.json", "arithmetic_2d_add.json", "answers/novel_letters.gpt3.jsonl"):
        one, two = (next(way.glob(f"step-*/{name}")).read_text() for way in (alone, shared))
        assert sorted(one.splitlines()) == sorted(two.splitlines())


def test_two_protocols_are_asked_on_the_same_items_and_stand_side_by_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["evaluate", str(folder), "--tasks", "arithmetic_2d_add", "--shots", "0", "--limit", "7",
             "--out", str(tmp_path)]  # fmt: skip
    assert main([*words, "--protocol", "gpt3,lm-eval", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (first,), (row,) = found["models"], found["protocols"]
    assert [(one["protocol"], one["metric"]) for one in first["results"]] == [("gpt3", "accuracy"), ("lm-eval", "acc")]
    assert (row["n"], row["n_unpaired"]) == (7, 0)
    assert main([*words, "--protocol", "gpt3,lm-eval"]) == 0
    seen = capsys.readouterr()
    assert "on the same questions" in seen.out
    assert "protocol" in seen.out.splitlines()[1]
    assert "lm-eval: choices are compared by summed log-probability" in seen.err


def test_the_best_number_of_shots_is_found_and_measured(
    folder: Path, tmp_path: Path, eval_data: DataFolder, capsys: pytest.CaptureFixture[str]
):
    sample = eval_data.path / "format_samples" / "openbookqa__main__1.0.0.zip"
    words = ["evaluate", str(folder), "--tasks", "openbookqa", "--data", str(sample), "--shots", "best", "--json",
             "--out", str(tmp_path)]  # fmt: skip
    assert main(words) == 0
    seen = capsys.readouterr()
    best = int(re.search(r"openbookqa: K = (\d+) scores best on the development set", seen.err)[1])
    assert {one["shots"] for one in json.loads(seen.out)["models"][0]["results"]} == {best}
