from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot.base.errors import FolderInUse
from fewshot.base.lock import hold, is_empty

HOLDER = """
import sys, time
from pathlib import Path
from fewshot.base.lock import hold
with hold(Path(sys.argv[1]), doing="fewshot train"):
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    process = _holder(tmp_path / "run")
    try:
        with pytest.raises(FolderInUse, match=rf"run is in use by process {process.pid} on .* \(fewshot train\): wait"):
            hold(tmp_path / "run", doing="fewshot resume").__enter__()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_died_holds_nothing(tmp_path: Path, number: int) -> None:
    process = _holder(tmp_path)
    process.send_signal(number)
    process.communicate()
    with hold(tmp_path, doing="this", wait_seconds=5):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_the_same_process_cannot_hold_it_twice_and_can_hold_it_again(tmp_path: Path) -> None:
    with hold(tmp_path, doing="first"):
        with pytest.raises(FolderInUse, match=r"\(first\)"), hold(tmp_path, doing="second"):
            pass
        (tmp_path / "link").symlink_to(tmp_path)
        with pytest.raises(FolderInUse), hold(tmp_path / "link", doing="another spelling"):
            pass
    with hold(tmp_path, doing="third"):
        pass


def test_a_lock_left_behind_is_nothing(tmp_path: Path) -> None:
    assert is_empty(tmp_path / "none")
    with hold(tmp_path / "run", doing="this"):
        pass
    assert is_empty(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").touch()
    assert not is_empty(tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_named_without_its_lock(tmp_path: Path) -> None:
    (tmp_path / "run" / ".lock").mkdir(parents=True)  # as root may write into read-only folders, another obstacle
    with pytest.raises(OSError) as caught:
        hold(tmp_path / "run", doing="this").__enter__()
    assert caught.value.filename == str(tmp_path / "run")
