"""Standard streams that whoever starts us has closed, as cron and daemons do: one line at most, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot.cli.main import main

SMALL = (
    "--model.n_layers 1 --model.d_model 16 --model.n_heads 2 --model.n_ctx 32 --schedule.batch_tokens 64 "
    "--loop.compile never"
)

CASES = [
    ("generate run --n_tokens 2 the >&-", "standard output is closed"),
    ("generate run --n_tokens 2 --json the >&-", "standard output is closed"),
    ("evaluate list >&-", "standard output is closed"),
    ("plan gpt3-small >&-", "standard output is closed"),
    ("patterns show dense >&-", "standard output is closed"),
    ("tokenizer encode run/tokenizer.json <&-", "standard input is closed"),
    ("tokenizer encode run/tokenizer.json the >&-", "standard output is closed"),
    ("report run >&-", "standard output is closed"),
    ("--help >&-", "standard output is closed"),
    ("--version >&-", "standard output is closed"),
    ("generate run --n_tokens 2 the <&-", None),
    ("generate run --n_tokens 2 the 2>&-", None),
    (f"train --text good.txt --out new --n_tokens 64 {SMALL} >&- <&- 2>&-", None),
]


@pytest.mark.parametrize(("words", "message"), CASES)
def test_a_closed_stream_is_one_line_or_nothing(
    words: str, message: str | None, tmp_path: Path, small_run: Path, text_file: Path
) -> None:
    (tmp_path / "run").symlink_to(small_run)
    (tmp_path / "good.txt").symlink_to(text_file)
    run = subprocess.run(
        f"{sys.executable} -m fewshot {words}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if message is None:
        assert run.returncode == 0, run.stderr
    else:
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert message in run.stderr


def test_messages_that_cannot_be_written_do_not_end_the_training(tmp_path: Path, text_file: Path) -> None:
    words = f"train --text {text_file} --out new --n_tokens 640 --data.tokenizer chars {SMALL}"
    run = subprocess.run(f"{sys.executable} -m fewshot {words} 2>/dev/full", shell=True, cwd=tmp_path, check=False)
    assert run.returncode == 0
    assert len(list((tmp_path / "new" / "checkpoints").glob("step-*/model.safetensors"))) == 1


def test_a_reader_of_messages_who_goes_away_does_not_end_the_training(tmp_path: Path, text_file: Path) -> None:
    words = f"train --text {text_file} --out new --n_tokens 3000 --data.tokenizer chars {SMALL} --loop.log_every 1"
    command = (
        f"({sys.executable} -m fewshot {words}; echo $? > code) 2>&1 | head -1; while ! test -s code; do sleep .1; done"
    )
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "code").read_text() == "0\n"
    assert len(list((tmp_path / "new" / "checkpoints").glob("step-*/model.safetensors"))) == 1


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        ("train", "lower --loop.micro_rows"),
        ("resume", "--loop.recompute full"),
        ("generate", "free some, or lower the amount of work done at once"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_out_of_memory_is_one_line_with_what_helps(
    command: str,
    way_out: str,
    error: Exception,
    set_in_module: Callable[[object, str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(words: list[str]) -> int:
        raise error

    set_in_module(main, "_run", run)
    assert main([command]) == 2
    message = capsys.readouterr().err
    assert message.startswith("fewshot: out of memory: ")
    assert message.count("\n") == 1
    assert way_out in message


def test_other_errors_of_the_program_keep_their_traceback(
    set_in_module: Callable[[object, str, object], None],
) -> None:
    def run(words: list[str]) -> int:
        raise RuntimeError("a mistake of ours")

    set_in_module(main, "_run", run)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main(["train"])
