"""Folders are read with their links, each once, and what is left out is counted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.corpus.folder import files_of
from fewshot.corpus.sources import read_documents


def listing(folder: Path) -> tuple[list[str], dict[str, int]]:
    not_read: Counter[str] = Counter()
    return [path.relative_to(folder).as_posix() for path in files_of(folder, not_read, set())], dict(not_read)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in (
        "corpus/a.txt",
        "corpus/m/x.txt",
        "corpus/m/y/z.txt",
        "corpus/.git/g.txt",
        "corpus/.h.txt",
        "other/o.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    return tmp_path / "corpus"


PLAIN = ["a.txt", "m/x.txt", "m/y/z.txt"]


def test_files_come_in_the_order_of_their_paths_without_hidden_ones(corpus: Path) -> None:
    assert listing(corpus) == (PLAIN, {})


LINKS = {
    "to a folder": ("b", "../other", ["a.txt", "b/o.txt", *PLAIN[1:]], {}),
    "to a file": ("b.txt", "../other/o.txt", ["a.txt", "b.txt", *PLAIN[1:]], {}),
    "to a hidden folder": ("b", ".git", ["a.txt", "b/g.txt", *PLAIN[1:]], {}),
    "to a folder beside": ("n", "m", PLAIN, {"links to folders that are read under another name": 1}),
    "to itself": ("b", "b", PLAIN, {"links that lead nowhere": 1}),
    "to the folder it is in": ("b", ".", PLAIN, {"links to folders above": 1}),
    "to the folder above": ("b", "..", PLAIN, {"links to folders above": 1}),
    "to the root of all": ("b", "/", PLAIN, {"links to folders above": 1}),
    "from below to the first folder": ("m/y/b", "../..", PLAIN, {"links to folders above": 1}),
    "to nothing": ("b.txt", "nowhere.txt", PLAIN, {"links that lead nowhere": 1}),
    "to nothing, hidden": (".b.txt", "nowhere.txt", PLAIN, {}),
    "to a device": ("b.txt", "/dev/null", PLAIN, {"pipes or devices": 1}),
}


@pytest.mark.parametrize("case", LINKS)
def test_links_are_followed_or_counted(corpus: Path, case: str) -> None:
    name, target, files, not_read = LINKS[case]
    (corpus / name).symlink_to(target)
    assert listing(corpus) == (files, not_read)


def test_two_links_to_one_folder_give_its_files_once(corpus: Path) -> None:
    (corpus / "b").symlink_to("../other")
    (corpus / "c").symlink_to(corpus.parent / "other")
    assert listing(corpus) == (
        ["a.txt", "b/o.txt", *PLAIN[1:]],
        {"links to folders that are read under another name": 1},
    )


def test_two_folders_that_link_to_each_other_end(corpus: Path) -> None:
    (corpus / "b").symlink_to("../other")
    (corpus.parent / "other/back").symlink_to("../corpus/m")
    files, not_read = listing(corpus)
    assert sorted(Path(file).name for file in files) == ["a.txt", "o.txt", "x.txt", "z.txt"]
    assert sum(not_read.values()) == 1


def test_folders_that_cannot_be_opened_are_counted(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Path):
        if Path(path).name == "y":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # a superuser may open every folder
    assert listing(corpus) == (PLAIN[:2], {"files or folders that cannot be opened": 1})
    with pytest.raises(BadFile, match="cannot be opened: permission denied"):
        listing(corpus / "m/y")


def test_what_is_left_out_is_one_line(corpus: Path) -> None:
    (corpus / "b").symlink_to("nowhere")
    (corpus / "c").symlink_to("m")
    (corpus / "d.png").touch()
    lines: list[str] = []
    next(read_documents([corpus], on_skip=lines.append))
    assert lines == [
        f"{corpus}: 1 links that lead nowhere, 1 links to folders that are read under another name, "
        "1 files in unsupported formats are not read"
    ]


def test_the_same_file_under_another_name_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt"):
        (tmp_path / "d" / name).write_text(name)
    (tmp_path / "d" / "link.txt").symlink_to("a.txt")
    (tmp_path / "d" / "hard.txt").hardlink_to(tmp_path / "d" / "a.txt")
    said: list[str] = []
    given = [tmp_path / "d", tmp_path / "d" / "sub", tmp_path / "d" / "a.txt"]
    texts = [document.text for document in read_documents(given, on_skip=said.append)]
    assert texts == ["a.txt", "sub/b.txt"]
    assert said == [
        f"{tmp_path}/d: 2 files that are read under another name are not read",
        f"{tmp_path}/d/sub: 1 files that are read under another name are not read",
        f"{tmp_path}/d/a.txt is given twice and read once",
    ]
