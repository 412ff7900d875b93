"""A run that is killed at any step and resumed ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import find_checkpoint
from fewshot.train.run import resume, start

SETTINGS = [
    *("--model.n_layers", "2", "--model.d_model", "16", "--model.n_heads", "2", "--model.n_ctx", "16"),
    *("--model.dropout", "0.1", "--model.pattern", "alternate(dense, banded(3))"),
    *("--data.tokenizer", "chars", "--data.val_fraction", "0.1"),
    *("--schedule.n_tokens", "3840", "--schedule.batch_tokens", "64", "--schedule.batch_start_tokens", "32"),
    *("--schedule.ramp_tokens", "800", "--schedule.warmup_tokens", "320", "--schedule.decay_tokens", "3840"),
    *("--loop.checkpoint_every", "4", "--loop.log_every", "1", "--loop.validate_every", "16"),
    *("--loop.micro_rows", "3", "--loop.compile", "never"),
]


def fewshot(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fewshot.cli.main", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 130), errors.decode()
    return process.returncode


def steps_done(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and max(steps_done(run), default=0) < step:
        time.sleep(0.005)


def same_weights_and_moments(a: Path, b: Path) -> None:
    first, second = find_checkpoint(a), find_checkpoint(b)
    assert first.step == second.step
    for name in ("model.safetensors", "training.safetensors"):
        mine, other = load_file(first.path / name), load_file(second.path / name)
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine), name


@pytest.fixture
def words(tmp_path: Path) -> Path:
    chosen = random.Random(0).choices(["the", "cat", "sat", "on", "a", "mat", "and", "was", "happy"], k=1500)
    path = tmp_path / "text.txt"
    path.write_text(" ".join(chosen))
    return path


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("normuon", marks=pytest.mark.slow)])
def test_a_run_killed_at_three_random_steps_ends_with_the_same_bits(
    tmp_path: Path, words: Path, optimizer: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = ["--text", str(words), *SETTINGS, "--optimizer.name", optimizer]
    assert ended(fewshot("train", *given, "--out", str(whole))) == 0
    n_steps = steps_done(whole)[-1]
    process = fewshot("train", *given, "--out", str(killed))
    kills = sorted(random.Random(optimizer).sample(range(2, n_steps - 6), 3))
    for step in kills:
        wait_for_step(killed, step, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = fewshot("resume", str(killed))
    assert ended(process) == 0
    same_weights_and_moments(whole, killed)
    rows = [map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) for run in (whole, killed)]
    losses = [[row["loss"] for row in part] for part in rows]
    assert losses[0] == losses[1]
    assert steps_done(killed) == steps_done(whole) == list(range(1, n_steps + 1))


def test_ctrl_c_stops_after_a_whole_step_with_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, words: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    given = ["--text", str(words), *SETTINGS, "--loop.checkpoint_every", "1000"]
    assert ended(fewshot("train", *given, "--out", str(whole))) == 0
    process = fewshot("train", *given, "--out", str(stopped))
    wait_for_step(stopped, 5, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"fewshot resume {stopped}" in errors.decode()
    step = find_checkpoint(stopped).step
    assert 5 <= step < steps_done(whole)[-1]
    assert ended(fewshot("resume", str(stopped))) == 0
    same_weights_and_moments(whole, stopped)


def test_recomputation_changes_no_bit_and_may_be_switched_on_when_a_run_goes_on(tmp_path: Path, words: Path) -> None:
    whole, recomputed = tmp_path / "whole", tmp_path / "recomputed"
    given = ["--text", str(words), *SETTINGS]
    assert ended(fewshot("train", *given, "--out", str(whole))) == 0
    process = fewshot("train", *given, "--out", str(recomputed))
    wait_for_step(recomputed, 8, process)
    process.send_signal(signal.SIGINT)
    ended(process)
    assert ended(fewshot("resume", str(recomputed), "--loop.recompute", "full")) == 0
    same_weights_and_moments(whole, recomputed)


@pytest.mark.parametrize("file", ["model.safetensors", "training.safetensors", "manifest.json"])
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before_and_ends_the_same(
    tmp_path: Path, tiny: Any, file: str
) -> None:
    given = tiny(loop={"checkpoint_every": 2, "keep_checkpoints": 2, "validate_every": 3})
    list(start(given, tmp_path / "whole", say=str))
    reports = start(given, tmp_path / "run", say=str)
    for _ in range(7):
        next(reports)
    reports.close()  # type: ignore[attr-defined]
    damaged = RunFolder(tmp_path / "run").checkpoint(6) / file
    damaged.write_bytes(damaged.read_bytes()[:-7])
    said: list[str] = []
    steps = [report.step for report in resume(tmp_path / "run", say=said.append)]
    assert steps == [5, 6, 7, 8, 9, 10]
    (line,) = [line for line in said if str(damaged) in line]
    assert line.endswith("; going on from step 4 instead")
    same_weights_and_moments(tmp_path / "whole", tmp_path / "run")
    rows = [map(json.loads, (tmp_path / run / "metrics.jsonl").read_text().splitlines()) for run in ("whole", "run")]
    figures = [[(row["step"], row["loss"], row["val_loss"]) for row in part] for part in rows]
    assert figures[0] == figures[1]
    names = sorted(path.name for path in RunFolder(tmp_path / "run").checkpoints.iterdir())
    assert names == ["step-00000008", "step-00000010"]
