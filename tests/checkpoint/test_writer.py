"""Saving beside training: what is saved, when, and what happens when it cannot be."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fewshot.base.errors import NotFinite
from fewshot.checkpoint.folder import RunFolder, checkpoint_name
from fewshot.checkpoint.load import find_checkpoint
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS
from fewshot.checkpoint.pieces import whole
from fewshot.checkpoint.reader import PieceReader
from fewshot.checkpoint.save import Content, write_checkpoint, write_tensors
from fewshot.checkpoint.writer import Writer
from fewshot.model.config import GPTConfig

CONFIG = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11)
SetInModule = Callable[[object, str, object], None]


def content(value: float) -> Content:
    return {WEIGHTS: [whole("a", torch.full((3, 4), value))], TRAINING: [whole("a/step", torch.tensor(value))]}


def start(writer: Writer, step: int, held: Content | None = None, *, is_final: bool = True) -> Path:
    held = held or content(float(step))
    return writer.start(held, step=step, config=CONFIG, counters={"rows": step}, is_final=is_final)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in RunFolder(run).checkpoints.iterdir())


def values(run: Path) -> set[float]:
    """What is in the newest checkpoint."""
    checkpoint = find_checkpoint(run)
    read = [PieceReader(checkpoint, file).tensors() for file in (WEIGHTS, TRAINING)]
    return {value for tensors in read for tensor in tensors.values() for value in tensor.flatten().tolist()}


@pytest.fixture
def held_back(set_in_module: SetInModule) -> Iterator[threading.Event]:
    """Nothing is written before this is set."""
    event = threading.Event()

    def wait(*args: object) -> None:
        assert event.wait(60)
        write_tensors(*args)  # type: ignore[arg-type]

    set_in_module(write_tensors, "write_tensors", wait)
    yield event
    event.set()


def test_what_changes_after_a_save_began_is_not_in_it(tmp_path: Path, held_back: threading.Event) -> None:
    weights = torch.full((3, 4), 5.0)
    with Writer(RunFolder(tmp_path), keep=2) as writer:
        path = start(writer, 5, {WEIGHTS: [whole("a", weights)]})
        assert not path.exists()  # training goes on meanwhile
        weights.fill_(6.0)
        held_back.set()
    assert values(tmp_path) == {5.0}
    assert find_checkpoint(tmp_path).counters == {"rows": 5}


def test_a_save_waits_for_the_one_before_it_and_leaving_for_the_last(
    tmp_path: Path, held_back: threading.Event
) -> None:
    with Writer(RunFolder(tmp_path), keep=2) as writer:
        first = start(writer, 1)
        timer = threading.Timer(0.2, held_back.set)
        timer.start()
        second = start(writer, 2)
        assert first.is_dir()
        timer.join()
    assert second.is_dir()
    assert values(tmp_path) == {2.0}


def test_older_ones_are_deleted_when_the_new_one_is_whole(tmp_path: Path) -> None:
    with Writer(RunFolder(tmp_path), keep=2) as writer:
        for step in (1, 2, 3, 4):
            start(writer, step)
            writer.wait()
            assert names(tmp_path) == [checkpoint_name(kept) for kept in range(max(1, step - 1), step + 1)]


def test_one_that_may_still_be_discarded_pushes_nothing_out(tmp_path: Path) -> None:
    with Writer(RunFolder(tmp_path), keep=1) as writer:
        start(writer, 1)
        start(writer, 2, is_final=False)
        writer.wait()
        assert names(tmp_path) == [checkpoint_name(1), checkpoint_name(2)]
        writer.discard()
        assert names(tmp_path) == [checkpoint_name(1)]
        start(writer, 3, is_final=False)
        writer.keep()
        assert names(tmp_path) == [checkpoint_name(3)]
        writer.keep()
        assert names(tmp_path) == [checkpoint_name(3)]


def test_what_is_not_finite_is_refused_at_once(tmp_path: Path) -> None:
    with Writer(RunFolder(tmp_path), keep=1) as writer:
        start(writer, 1)
        with pytest.raises(NotFinite, match=r"^a/step is not finite"):
            start(writer, 2, {WEIGHTS: content(2.0)[WEIGHTS], TRAINING: content(float("nan"))[TRAINING]})
    assert names(tmp_path) == [checkpoint_name(1)]


# ---- what the system refuses


def no_space(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_in_a_line_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(RunFolder(tmp_path), keep=1) as writer:
        start(writer, 1)
        writer.wait()
        with monkeypatch.context() as patch:
            patch.setattr(f"{write_tensors.__module__}.write_tensors", no_space)
            path = start(writer, 2)
            writer.wait()
        said = f"the checkpoint {path} was not written: no space left on device; the newest is {checkpoint_name(1)}"
        assert capsys.readouterr().err == f"{said}; training goes on\n"
        assert names(tmp_path) == [checkpoint_name(1)]
        assert values(tmp_path) == {1.0}
        start(writer, 3)
    assert names(tmp_path) == [checkpoint_name(3)]
    assert capsys.readouterr().err == ""


def test_a_run_whose_last_checkpoint_could_not_be_written_fails(
    tmp_path: Path, set_in_module: SetInModule, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Writer(RunFolder(tmp_path), keep=1)
    start(writer, 1)
    writer.wait()
    set_in_module(write_tensors, "write_tensors", no_space)
    start(writer, 2, is_final=False)
    writer.keep()  # it ends no run yet
    with pytest.raises(OSError, match="No space left"):
        writer.__exit__(None, None, None)
    assert names(tmp_path) == [checkpoint_name(1)]
    assert capsys.readouterr().err.count("\n") == 1


def test_discarding_what_was_never_written_leaves_the_older_one(tmp_path: Path, set_in_module: SetInModule) -> None:
    writer = Writer(RunFolder(tmp_path), keep=1)
    start(writer, 1, is_final=False)
    writer.wait()
    set_in_module(write_tensors, "write_tensors", no_space)
    start(writer, 2, is_final=False)
    writer.discard()
    assert names(tmp_path) == [checkpoint_name(1)]


def test_any_other_failure_ends_the_run_at_its_next_save(tmp_path: Path, set_in_module: SetInModule) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("connection closed by peer")

    set_in_module(write_tensors, "write_tensors", fail)
    writer = Writer(RunFolder(tmp_path), keep=1)
    start(writer, 1)
    with pytest.raises(RuntimeError, match="closed by peer"):
        start(writer, 2)
    writer.finish()  # it was told
    assert names(tmp_path) == []


FULL = """
import sys
from pathlib import Path
import torch
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import find_checkpoint
from fewshot.checkpoint.manifest import WEIGHTS
from fewshot.checkpoint.pieces import whole
from fewshot.checkpoint.writer import Writer
from fewshot.model.config import GPTConfig

disk = Path(sys.argv[1])
held = {WEIGHTS: [whole("a", torch.ones(100, 1000))]}  # 400 kB
config = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11)
with Writer(RunFolder(disk / "run"), keep=2) as writer:
    for step in (1, 2, 3, 4):
        if step == 3:
            (disk / "other").write_bytes(bytes(100_000))  # what another program writes
        if step == 4:
            (disk / "other").unlink()
        writer.start(held, step=step, config=config, counters={})
        writer.wait()
        there = sorted(path.name for path in RunFolder(disk / "run").checkpoints.iterdir())
        print(step, there, find_checkpoint(disk / "run").step)
"""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root mounts a disk of its own")
def test_a_disk_that_is_really_full_keeps_what_was_whole(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1240k tmpfs '{tmp_path}'"  # three checkpoints
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine mounts nothing")
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    first, second = checkpoint_name(1), checkpoint_name(2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"1 {[first]} 1",
        f"2 {[first, second]} 2",
        f"3 {[first, second]} 2",
        f"4 {[second, checkpoint_name(4)]} 4",
    ]
    assert "step-00000003 was not written: no space left on device; the newest is step-00000002" in done.stderr


# ---- interruptions and kills


def test_an_error_in_training_waits_for_what_is_being_written(tmp_path: Path, held_back: threading.Event) -> None:
    def train() -> None:
        with Writer(RunFolder(tmp_path), keep=2) as writer:
            start(writer, 1)
            threading.Timer(0.1, held_back.set).start()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    assert values(tmp_path) == {1.0}


def test_an_interruption_ends_what_is_being_written_and_nothing_of_it_stays(
    tmp_path: Path, set_in_module: SetInModule
) -> None:
    reached = threading.Event()

    def write(*args: object) -> None:
        write_tensors(*args)  # type: ignore[arg-type]
        reached.set()
        while not writer._stopped.is_set():
            pass

    def train() -> None:
        with writer:
            start(writer, 2)
            reached.wait(60)
            raise KeyboardInterrupt

    writer = Writer(RunFolder(tmp_path), keep=2)
    start(writer, 1)
    writer.wait()
    set_in_module(write_tensors, "write_tensors", write)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert names(tmp_path) == [checkpoint_name(1)]


@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
def test_an_interruption_while_it_waits_ends_it_too(tmp_path: Path, set_in_module: SetInModule) -> None:
    def write(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # the main thread waits by then, or soon
        while not writer._stopped.is_set():
            pass
        write_tensors(*args)  # type: ignore[arg-type]

    set_in_module(write_tensors, "write_tensors", write)
    writer = Writer(RunFolder(tmp_path), keep=2)
    with pytest.raises(KeyboardInterrupt), writer:
        start(writer, 1)
    assert names(tmp_path) == []


KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from fewshot.checkpoint.folder import RunFolder, step_of
from fewshot.checkpoint.load import find_checkpoint
from fewshot.checkpoint.manifest import TRAINING, WEIGHTS, read_manifest
from fewshot.checkpoint.pieces import whole
from fewshot.checkpoint.reader import PieceReader
from fewshot.checkpoint.writer import Writer
from fewshot.model.config import GPTConfig

torch.set_num_threads(1)
run, kills, rng = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), random.Random(0)
config = GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11)
inside = 0

def held(step):
    a, m = torch.full((200, 50), float(step)), torch.full((9,), -step)
    return {WEIGHTS: [whole("a", a)], TRAINING: [whole("a/m", m)]}

def train(first, n_steps):
    with Writer(run, keep=2) as writer:
        for step in range(first, first + n_steps):
            writer.start(held(step), step=step, config=config, counters={"rows": step})

def newest():
    return find_checkpoint(run.path).step if run.checkpoint_folders() else 0

for kill in range(kills):
    child = os.fork()
    if child == 0:
        train(newest() + 1, 10**6)
        os._exit(0)
    time.sleep(rng.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    entries = list(run.checkpoints.iterdir()) if run.checkpoints.exists() else []
    inside += any(entry.name.endswith(".partial") for entry in entries)
    for folder in run.checkpoint_folders():
        step = step_of(folder.name)
        checkpoint = read_manifest(folder)
        assert checkpoint.counters == {"rows": step}
        for file, pieces in held(step).items():
            tensors = PieceReader(checkpoint, file).tensors()
            assert all(torch.equal(tensors[piece.name], piece.tensor) for piece in pieces), folder
    if kill % 4 == 3:
        train(newest() + 1, 1)
        assert not [entry for entry in run.checkpoints.iterdir() if entry.name.startswith(".")], "litter"
        assert len(run.checkpoint_folders()) <= 2
print(newest(), inside)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_whole_checkpoints_and_no_litter_after_the_next_save(
    tmp_path: Path, kills: int
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    step, inside = map(int, done.stdout.split())
    assert step > kills / 4  # it came forward
    assert inside > 0  # some kills met a save


def test_a_later_checkpoint_that_is_damaged_is_neither_counted_nor_deleted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Writer(run, keep=1) as writer:
        start(writer, 4)
    for step in (8, 12):
        write_checkpoint(tmp_path, content(0.0), step=step, config=CONFIG, counters={})
        (run.checkpoint(step) / WEIGHTS).write_bytes(b"damaged")
    with Writer(run, keep=1) as writer:  # goes on from step 4
        start(writer, 6)
        writer.wait()
        assert names(tmp_path) == [checkpoint_name(step) for step in (6, 8, 12)]
        start(writer, 8)
        writer.wait()
        assert names(tmp_path) == [checkpoint_name(step) for step in (8, 12)]
    assert values(tmp_path) == {8.0}
