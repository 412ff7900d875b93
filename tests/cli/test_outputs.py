"""Where commands write: what they are pointed at is looked at first; only a regular file is ever replaced."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from fewshot.cli.main import main

TOKENIZER = "tokenizer train --kind bytes --out"
PICTURE = "patterns show dense --n 8 --png"
RUN = "train --text good.txt --n_tokens 64 --preset tiny-1m --out"


@pytest.fixture
def here(tmp_path: Path, small_run: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of everything that an output can be pointed at."""
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(small_run)
    Path("good.txt").symlink_to(text_file)
    try:
        os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod("full", 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("only root can make a device")
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("file").write_text("mine")
    Path("real").mkdir()
    Path("link").symlink_to("real/file")
    Path("linked_folder").symlink_to("folder")
    Path("loop").symlink_to("loop")
    return tmp_path


def kinds(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IFMT(path.lstat().st_mode) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (f"{TOKENIZER} null", 0, ""),
        (f"{PICTURE} null", 0, ""),
        ("report run --out null", 0, ""),
        (f"{TOKENIZER} full", 2, "no space left"),
        (f"{PICTURE} full", 2, "no space left"),
        (f"{TOKENIZER} folder", 2, "folder is a folder; give the name of a file"),
        (f"{PICTURE} linked_folder", 2, "is a folder; give the name of a file"),
        ("report run --out folder", 2, "is a folder"),
        (f"{TOKENIZER} file/below.json", 2, "file is a file, not a folder"),
        (f"{TOKENIZER} null/below.json", 2, "null is a file, not a folder"),
        (f"{TOKENIZER} loop", 2, "loop"),
        (f"{RUN} null", 2, "null"),
        (f"{RUN} pipe", 2, "pipe"),
        (f"{RUN} file", 2, "file"),
        ("convert run null", 2, "null"),
        ("convert run file", 2, "file"),
    ],
)
def test_an_output_that_is_no_regular_file_is_written_to_or_refused(
    here: Path, words: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = kinds(here)
    assert main(words.split()) == code
    message = capsys.readouterr().err
    assert said in message
    assert "partial" not in message
    assert kinds(here) == before
    assert Path("file").read_text() == "mine"


def test_a_pipe_gets_what_is_written(here: Path) -> None:
    got: list[str] = []
    lm = threading.Thread(target=lambda: got.append(Path("pipe").read_text()))
    lm.start()
    assert main(f"{TOKENIZER} pipe".split()) == 0
    lm.join()
    assert got == ['{"type": "bytes"}']


def test_a_link_is_followed(here: Path) -> None:
    assert main(f"{TOKENIZER} link".split()) == 0
    assert Path("link").is_symlink()
    assert Path("real/file").read_text() == '{"type": "bytes"}'


@pytest.mark.parametrize("words", [f"{TOKENIZER} file", f"{PICTURE} file", f"{TOKENIZER} run/tokenizer.json"])
def test_a_file_that_is_there_is_not_replaced(here: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(words.split()[-1])
    before = path.read_bytes()
    assert main(words.split()) == 2
    assert f"{path} exists: give another name, or delete it first" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_run_inside_its_own_text_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder/a.txt").write_text("text " * 300)
    assert main(["train", "--text", "folder", "--n_tokens", "64", "--preset", "tiny-1m", "--out", "folder/run"]) == 2
    assert "folder/run lies in the folder of text folder, and would be read as text" in capsys.readouterr().err
    assert [path.name for path in Path("folder").iterdir()] == ["a.txt"]


def test_a_text_that_is_not_there_leaves_no_folder(here: Path) -> None:
    assert main(["train", "--text", "nowhere.txt", "--out", "new"]) == 2
    assert not Path("new").exists()
