"""The README's commands, run as they stand, on a small folder of books."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fewshot.cli.main import main

README = Path(__file__).parents[2] / "README.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("fewshot ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.timeout(600)
def test_the_commands_for_ones_own_text_work_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_books").mkdir()
    for i in range(3):
        story = (
            f"Chapter {i}. It was a dark night, and the cat sat by the fire; nobody spoke of the sea any more.\n" * 40
        )
        (tmp_path / "my_books" / f"{i}.txt").write_text(story, encoding="utf-8")
    words = commands()
    assert [command[0] for command in words] == ["train", "generate", "evaluate", "report", "patterns", "train"]
    for command in words:
        assert main(command) == 0, command
    printed = capsys.readouterr()
    assert "It was a" in printed.out
    assert "novel_symbols" in printed.out
    assert (tmp_path / "out" / "books" / "report.html").exists()
    assert "model: tiny-1m" in printed.err
    assert "for banded(64)" in printed.err
