"""Tokenising that was stopped, killed or out of disk goes on: in the end the same bytes, by any number of threads."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot.base.files import remove_litter
from fewshot.corpus.document import Document
from fewshot.dataset.encode import encoded
from fewshot.dataset.tokenise import build_parts
from fewshot.tokenizer.pieces import pieces


def long_source(n: int = 60, stop_at: int | None = None) -> Iterator[tuple[str, Document]]:
    """Documents of two parts, each with a long one in stretches; stopped before a document as by Ctrl-C."""
    for number in range(n):
        if number == stop_at:
            raise KeyboardInterrupt
        part = "b" if number % 4 == 1 else "a"
        text = f"document number {number:02} ünd " * (1 + number % 5)
        yield part, Document(id=str(number), text=text, source="test", more=number in (20, 21, 24, 28, 41))


def built(
    folder: Path, tokenizer: Any, *, read: Callable = long_source, max_tokens: int = 300, **options: Any
) -> dict[str, bytes]:
    build_parts(read, tokenizer, folder, parts=["a", "b"], max_tokens_per_shard=max_tokens, **options)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def often(set_in_module: Callable[[object, str, object], None]) -> None:
    """Pieces of some words, and a note of how far it came after each few of them."""
    set_in_module(pieces, "PIECE_CHARS", 20)
    set_in_module(encoded, "PIECE_CHARS", 40)
    set_in_module(build_parts, "SAVE_BYTES", 150)


@pytest.mark.parametrize("n_threads", [1, 2, 7])
@pytest.mark.usefixtures("often")
def test_files_and_indexes_do_not_depend_on_the_number_of_threads(
    tmp_path: Path, code_points: Callable, n_threads: int
) -> None:
    wanted = built(tmp_path / "wanted", code_points(), n_threads=3)
    assert len(wanted) > 8
    assert built(tmp_path / "made", code_points(), n_threads=n_threads) == wanted


@pytest.mark.usefixtures("often")
def test_what_was_stopped_goes_on_with_the_same_bytes_in_the_end(
    tmp_path: Path, code_points: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = built(tmp_path / "wanted", code_points())
    for stop_at in range(3, 60, 4):
        with pytest.raises(KeyboardInterrupt):
            built(tmp_path / "made", code_points(), read=partial(long_source, stop_at=stop_at))
        assert not list((tmp_path / "made").glob("?.json"))
    assert built(tmp_path / "made", code_points()) == wanted
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 14 or len(said) == 15  # the first may have been stopped before a piece was written
    assert all(line.startswith("a: going on behind ") and line.endswith("tokenised before") for line in said)


@pytest.mark.usefixtures("often")
def test_what_was_written_before_a_stop_is_not_encoded_again(tmp_path: Path, code_points: Callable) -> None:
    encoded_chars = 0

    class Counts(type(code_points())):  # type: ignore[misc]
        def encode_to_numpy(self, text: str) -> np.ndarray:
            nonlocal encoded_chars
            encoded_chars += len(text)
            return super().encode_to_numpy(text)

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, code_points(), read=partial(long_source, stop_at=50))
    built(tmp_path, Counts(), on_progress=seen.append, n_threads=1)
    n_chars = sum(len(document.text) for _, document in long_source())
    assert 0 < encoded_chars < n_chars / 4
    assert seen == sorted(seen)
    assert seen[-1] == sum(len(document.text.encode()) for _, document in long_source())


@pytest.mark.parametrize("changed", ["the first text", "a text near the stop", "all that is left", "tokenizer", "size"])
@pytest.mark.usefixtures("often")
def test_what_was_stopped_is_begun_anew_if_it_would_not_be_the_same(
    tmp_path: Path, code_points: Callable, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "made", code_points(), read=partial(long_source, stop_at=40))
    tokenizer = code_points(fingerprint="other") if changed == "tokenizer" else code_points()

    def read() -> Iterator[tuple[str, Document]]:
        for number, (part, document) in enumerate(long_source(5 if changed == "all that is left" else 60)):
            is_it = number == {"the first text": 0, "a text near the stop": 35}.get(changed)
            yield part, dataclasses.replace(document, text=document.text[::-1]) if is_it else document

    max_tokens = 200 if changed == "size" else 300
    wanted = built(tmp_path / "wanted", tokenizer, read=read, max_tokens=max_tokens)
    capsys.readouterr()
    assert built(tmp_path / "made", tokenizer, read=read, max_tokens=max_tokens) == wanted
    why = {"tokenizer": "tokenizer changed", "size": "other size of shards"}.get(changed, "text changed")
    assert capsys.readouterr().err == f"a: tokenising from the beginning: {why}\n"


@pytest.mark.usefixtures("often")
def test_what_a_kill_after_the_last_index_left_is_cleared_away(tmp_path: Path, code_points: Callable) -> None:
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, code_points(), read=partial(long_source, stop_at=40))
    state = (tmp_path / "a.unfinished.json").read_bytes()
    wanted = built(tmp_path, code_points())
    (tmp_path / "a.unfinished.json").write_bytes(state)
    assert built(tmp_path, code_points()) == wanted
    assert "a.unfinished.json" not in wanted


@pytest.mark.parametrize("damage", ["cut", "of another kind", "a shard changed", "a shard gone"])
@pytest.mark.usefixtures("often")
def test_a_damaged_beginning_is_not_gone_on_with(
    tmp_path: Path, code_points: Callable, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    wanted = built(tmp_path / "wanted", code_points())
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "made", code_points(), read=partial(long_source, stop_at=40))
    state, shard = tmp_path / "made/a.unfinished.json", tmp_path / "made/a-00001.bin"
    match damage:
        case "cut":
            state.write_bytes(state.read_bytes()[:-40])
        case "of another kind":
            state.write_text('{"parts": [{"shards": []}, {"shards": []}]}')
        case "a shard changed":
            shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
        case _:
            shard.unlink()
    assert built(tmp_path / "made", code_points()) == wanted
    assert capsys.readouterr().err == "a: tokenising from the beginning: file damaged\n"


@pytest.mark.usefixtures("often")
def test_on_a_full_disk_what_was_stored_before_is_gone_on_with(
    tmp_path: Path, code_points: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = built(tmp_path / "wanted", code_points())
    n_left = 25

    def full(file: int) -> None:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left on device") as refused:
            built(tmp_path / "made", code_points())
    assert str(tmp_path) in str(refused.value.filename)
    assert not list((tmp_path / "made").glob("?.json"))
    capsys.readouterr()
    assert built(tmp_path / "made", code_points()) == wanted
    assert capsys.readouterr().err.startswith("a: going on behind ")


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy
from test_taken_up import long_source
from conftest import CodePoints
from fewshot.dataset import encode, tokenise
from fewshot.tokenizer import pieces

pieces.PIECE_CHARS, encode.PIECE_CHARS, tokenise.SAVE_BYTES = 20, 40, 150
n_left = int(sys.argv[3])

def step(*done):
    global n_left
    n_left -= 1
    if n_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

sync, truncate = os.fsync, tokenise.PartWriter.cut
os.fsync = lambda file: (step(), sync(file), step())  # before and after whatever is put on disk
tokenise.PartWriter.cut = lambda self: (step(), truncate(self))
tokenise.build_parts(long_source, CodePoints(), Path(sys.argv[2]), parts=["a", "b"],
            max_tokens_per_shard=300, on_progress=step)
"""


@pytest.mark.usefixtures("often")
def test_a_killed_build_goes_on_with_the_same_bytes_in_the_end(tmp_path: Path, code_points: Callable) -> None:
    wanted = built(tmp_path / "wanted", code_points())
    made = tmp_path / "made"
    for n_steps in (30, 95, 96, 97, 150, 153, 211):
        command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(made), str(n_steps)]
        killed = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert "from the beginning" not in killed.stderr
        assert not list(made.glob("?.json"))
    remove_litter(made)  # as when a run is begun
    assert built(made, code_points()) == wanted


@pytest.mark.usefixtures("often")
def test_a_build_is_taken_up_wherever_it_was_left_between_two_steps_on_disk(
    tmp_path: Path, code_points: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Left(BaseException):
        """Nothing that is done after it reaches the disk, as after a kill."""

    wanted = built(tmp_path / "wanted", code_points())
    sync = os.fsync
    n_steps = 0
    for n_before in range(0, 200, 3):
        made, copy = tmp_path / f"made{n_before}", tmp_path / f"copy{n_before}"
        n_steps = 0

        def counted(file: int) -> None:
            nonlocal n_steps
            if n_steps == n_before:  # noqa: B023 - called within this turn of the loop
                shutil.copytree(made, copy)  # noqa: B023
                raise Left
            n_steps += 1
            sync(file)

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", counted)
            try:
                built(made, code_points())
            except Left:
                pass
            else:
                break
        remove_litter(copy)
        assert built(copy, code_points()) == wanted, n_before
        assert "from the beginning" not in capsys.readouterr().err, n_before
    else:
        raise AssertionError("more steps than were tried")
    assert n_steps > 40
