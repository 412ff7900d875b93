"""One process of several is killed, or all are told to stop: the run goes on and ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot.checkpoint.load import find_checkpoint, open_training
from fewshot.checkpoint.manifest import WEIGHTS
from fewshot.checkpoint.reader import PieceReader

N_STEPS = 60
SETTINGS = [
    *("--model.n_layers", "2", "--model.d_model", "16", "--model.n_heads", "2", "--model.n_ctx", "16"),
    *("--model.dropout", "0.1", "--data.tokenizer", "chars"),
    *("--schedule.n_tokens", str(N_STEPS * 128), "--schedule.batch_tokens", "128"),
    *("--schedule.batch_start_tokens", "128", "--schedule.ramp_tokens", "0", "--schedule.warmup_tokens", "320"),
    *("--schedule.decay_tokens", str(N_STEPS * 128), "--optimizer.name", "normuon"),
    *("--loop.checkpoint_every", "5", "--loop.log_every", "1", "--loop.validate_every", "20", "--loop.micro_rows", "2"),
    *("--loop.compile", "never", "--loop.kernel", "sdpa", "--loop.precision", "float32", "--parallel.exact", "true"),
]
GONE_SECONDS = 60  # that the others may take to end when a process has died


def fewshot(n: int, *words: str) -> subprocess.Popen[str]:
    """Start a command in so many processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)] if n > 1 else []
    return subprocess.Popen(
        [sys.executable, *torchrun, "-m", "fewshot", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(n: int, text: Path, run: Path) -> subprocess.Popen[str]:
    return fewshot(n, "train", "--text", str(text), "--out", str(run), *SETTINGS)


def ended_well(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a command and return what it said."""
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    return said


def tensors(run: Path, n_steps: int = N_STEPS) -> dict[str, Tensor]:
    checkpoint = find_checkpoint(run)
    assert checkpoint.step == n_steps
    return PieceReader(checkpoint, WEIGHTS).tensors() | open_training(checkpoint).tensors()


def last_step(run: Path) -> int:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def wait_until(claim: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not claim():
        time.sleep(0.01)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights and moments of a run of one process that nothing has happened to."""
    run = tmp_path_factory.mktemp("faults") / "whole"
    process = train(1, text, run)
    ended_well(process)
    return tensors(run)


def killed_and_resumed(text: Path, run: Path, *, n_kills: int, seed: int) -> list[str]:
    """Train with four processes of which one is killed, so many times; return what each time was said."""
    draw, process, said = random.Random(seed), train(4, text, run), list[str]()
    for number in range(n_kills):
        step = last_step(run) + draw.randint(1, N_STEPS // n_kills)
        wait_until(lambda: last_step(run) >= step, process)  # noqa: B023
        time.sleep(draw.random() / 10)
        pids = children(process)
        if process.poll() is None and pids:
            os.kill(draw.choice(pids), signal.SIGKILL)
        said.append(process.communicate(timeout=GONE_SECONDS)[1])
        assert not any(is_alive(pid) for pid in pids), number
        process = fewshot(4, "resume", str(run)) if (run / "config.yaml").exists() else train(4, text, run)
    return [*said, ended_well(process)]


@pytest.mark.parametrize("n_kills", [1, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_killed_process_ends_the_job_and_the_run_goes_on_with_the_same_bits(
    text: Path, tmp_path: Path, whole: dict[str, Tensor], n_kills: int
) -> None:
    run = tmp_path / "run"
    said = killed_and_resumed(text, run, n_kills=n_kills, seed=n_kills)
    assert any("Signal 9 (SIGKILL)" in lines for lines in said[:-1])
    left = tensors(run)
    assert left.keys() == whole.keys()
    assert all(torch.equal(left[name], whole[name]) for name in whole)
    assert [path.name for path in (run / "checkpoints").iterdir() if not path.name.startswith("step-")] == []
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, N_STEPS + 1))


@pytest.mark.slow
def test_a_signal_to_all_saves_and_ends_well_and_another_number_of_processes_goes_on(
    text: Path, tmp_path: Path, whole: dict[str, Tensor]
) -> None:
    run = tmp_path / "run"
    process = train(4, text, run)
    wait_until(lambda: last_step(run) >= 7, process)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on
    said = process.communicate(timeout=GONE_SECONDS)[1]
    stopped = find_checkpoint(run).step
    assert 7 <= stopped < N_STEPS, said
    assert last_step(run) == stopped
    assert f"stopped after step {stopped} of {N_STEPS}" in said
    assert "stopping after this step" in said
    process = fewshot(2, "resume", str(run))
    ended_well(process)
    left = tensors(run)
    assert all(torch.equal(left[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_two_machines_started_by_the_script_train_one_run(text: Path, tmp_path: Path, whole: dict[str, Tensor]) -> None:
    script = Path(__file__).parents[3] / "runs" / "several_machines.sh"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = ["train", "--text", str(text), "--out", str(tmp_path / "run"), *SETTINGS]
    both = [
        subprocess.Popen(
            ["bash", str(script), *words],
            env={
                **os.environ,
                **{"OMP_NUM_THREADS": "1", "NODES": "2", "NODE": str(node), "FIRST": "127.0.0.1", "PORT": port},
                "PYTHON": sys.executable,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    for process in both:
        ended_well(process)
    left = tensors(tmp_path / "run")
    assert all(torch.equal(left[name], whole[name]) for name in whole)


def with_one_broken(
    out: Path, given: dict[str, Any], what: str, calls: list[int]
) -> tuple[list[tuple[int, float | None, str | None]], str]:
    """Return what four processes saw, each the same, where the third is broken in these calls; and the last error."""
    words = {"given": given, "out": str(out), "rank": 2, "what": what, "calls": calls}
    script = Path(__file__).with_name("one_is_broken.py")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    done = subprocess.run(
        [sys.executable, *torchrun, str(script), json.dumps(words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads((out / f"{rank}.json").read_text()) for rank in range(4)]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0][0], outcomes[0][1]


@pytest.mark.parametrize(
    ("what", "calls", "n_steps"),
    [
        pytest.param("gradient", [5], 8, marks=pytest.mark.slow),
        ("moment", [5], 12),
        pytest.param("loss", [70], 72, marks=pytest.mark.slow),
        pytest.param("gradient", [5, 6, 7], 12, marks=pytest.mark.slow),
    ],
)
def test_what_one_process_has_broken_all_decide_alike_and_the_run_goes_on(
    tmp_path: Path, tiny: Any, what: str, calls: list[int], n_steps: int
) -> None:
    given = tiny(n_steps=n_steps, loop={"checkpoint_every": 4, "micro_rows": 1}, parallel={"fsdp": 4})
    seen, error = with_one_broken(tmp_path, given, what, calls)
    assert not error
    assert seen[-1][0] == n_steps
    told = {step: event for step, _, event in seen if event}
    if len(calls) == 1 and what != "moment":
        assert list(told) == calls
        assert told[calls[0]].startswith("skipped, not learned from: the ")
    else:
        assert "went back to step 4, because in step" in told[5]
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path / "run", n_steps).values())


@pytest.mark.slow
def test_a_process_that_is_broken_for_good_ends_all_after_three_rewinds(tmp_path: Path, tiny: Any) -> None:
    given = tiny(n_steps=12, loop={"checkpoint_every": 4, "micro_rows": 1}, parallel={"fsdp": 4})
    seen, error = with_one_broken(tmp_path, given, "gradient", list(range(6, 200)))
    assert error.startswith("training diverged after 3 rewinds: in step ")
    assert "the gradient's norm is nan, and 2 steps before it were skipped; the last good checkpoint is" in error
    assert sum("went back" in (event or "") for _, _, event in seen) == 3
