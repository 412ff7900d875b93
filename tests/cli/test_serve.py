"""A server as a process: what it refuses, how it ends, and that it begins again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot.cli.main import main

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'fewshot[serve]'")

REFUSED = {
    "a port that is none": (["--port", "70000"], "--port is 70000, must be in 0..65535"),
    "no memory": (["--cache_mb", "0"], "--cache_mb is 0, must be at least 1"),
    "open to others without a key": (["--host", "0.0.0.0"], "can be reached from other machines: give a --key"),
    "an empty key": (["--key", ""], "a key is empty"),
    "a grace below 0": (["--grace_seconds", "-1"], "--grace_seconds is -1, must be at least 0"),
    "unknown weights": (["--weight_type", "int4"], "unknown weight type 'int4'; nearest: 'int8'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_line(small_run: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = REFUSED[case]
    assert main(["serve", str(small_run), *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


Started = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def start(small_run: Path) -> Iterator[Callable[..., Started]]:
    """Start a server; return its process and its address."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> Started:
        command = [sys.executable, "-m", "fewshot", "serve", str(small_run), "--port", "0", *words]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        processes.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("serving "):
                return process, line.split(" at ")[1].split(";")[0]
        raise AssertionError("it did not start")

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def post(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(f"{url}/completions", data), timeout=60)


def test_sigterm_lets_streams_end_and_then_ends_them_with_an_error(start: Callable[..., Started]) -> None:
    process, url = start("--grace_seconds", "1")
    body = {"prompt": "the", "max_tokens": 25, "n": 16, "stream": True}
    endings: list[str] = []

    def read() -> None:
        with post(url, body) as answer:
            endings.append(answer.read().decode().rstrip().rsplit("\n\n", 1)[-1])

    readers = [threading.Thread(target=read) for _ in range(20)]
    for reader in readers:
        reader.start()
    time.sleep(1.0)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - began < 12
    for reader in readers:
        reader.join(timeout=5)
    assert len(endings) == 20
    for ending in endings:
        is_error = ending.startswith('data: {"error"') and "shutting down" in ending
        assert ending == "data: [DONE]" or is_error, ending


def test_after_kill_the_next_one_serves_the_same(start: Callable[..., Started]) -> None:
    body = {"prompt": "the", "max_tokens": 5, "seed": 3}
    process, url = start()
    first = json.load(post(url, body))
    process.kill()
    process.wait()
    _, url = start()
    second = json.load(post(url, body))
    assert first["choices"] == second["choices"]
    assert first["system_fingerprint"] == second["system_fingerprint"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(url, {"prompt": "the", "nothing": 1})


def test_a_receipt_is_replayed_from_the_run_that_made_it_and_refused_elsewhere(
    start: Callable[..., Started], small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process, url = start("--weight_type", "bfloat16")
    answer = json.load(post(url, {"prompt": "the", "max_tokens": 9, "n": 2, "receipt": True}))
    process.kill()
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(answer))
    assert main(["replay", str(path), "--model", str(small_run)]) == 0
    assert capsys.readouterr().out.startswith("same bits in all choices (2): ")
    doctored = answer["receipt"]
    longest = max(range(2), key=lambda i: len(doctored["choices"][i]["logprobs"]))  # one may end at once
    place = len(doctored["choices"][longest]["logprobs"]) - 1
    doctored["choices"][longest]["logprobs"][place] -= 1e-6
    path.write_text(json.dumps(doctored))
    assert main(["replay", str(path), "--model", str(small_run)]) == 1
    assert capsys.readouterr().out.startswith(f"choice {longest} parts at token {place}: ")
    doctored["identity"]["processor"] = "another"
    doctored["identity"]["weights"] = "others"
    path.write_text(json.dumps(doctored))
    nothing = tmp_path / "nothing.json"
    nothing.write_text("[]")
    refused = {
        "weights: the receipt has others": [str(path), "--model", str(small_run)],
        "give the run that made the receipt with --model RUN": [str(path)],
        "--step belongs to a run": [str(path), "--model", str(small_run), "--step", "1"],
        "compute again with --step N": [str(small_run)],
        "is no receipt": [str(nothing), "--model", str(small_run)],
    }
    for message, words in refused.items():
        assert main(["replay", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_port_that_is_taken_and_a_host_that_is_none_are_one_line(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(small_run), "--port", port]) == 2
    assert capsys.readouterr().err == f"fewshot: --host 127.0.0.1 --port {port}: address already in use; give another\n"
    assert main(["serve", str(small_run), "--host", "999.1.1.1", "--key", "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fewshot: --host 999.1.1.1 --port 8000: ")
    assert error.count("\n") == 1
