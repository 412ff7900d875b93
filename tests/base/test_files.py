from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.base.files import read_bytes, read_json, read_text, sha256_file, write_json, write_text, written_whole


def test_text_and_json_come_back_as_written_in_new_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "Grüße\n")
    assert read_text(tmp_path / "new" / "a.txt") == "Grüße\n"
    write_json(tmp_path / "b.json", {"b": [1, None], "a": "é"})
    assert (tmp_path / "b.json").read_text("utf-8").endswith('"a": "é"\n}\n')
    assert read_json(tmp_path / "b.json") == {"b": [1, None], "a": "é"}


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path: Path, stop: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(stop) if isinstance(stop, OSError) else stop), written_whole(path) as partial:  # noqa: PT012
        partial.write_text("half of the n")
        raise stop
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_of_a_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as partial:  # noqa: PT012
        partial.mkdir()
        (partial / "a").write_text("new")
        raise RuntimeError
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_another_wholly(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("first", "second"):
        with written_whole(path) as partial:
            (partial / "inner").mkdir(parents=True)
            (partial / "inner" / name).write_text(name)
    assert [file.name for file in path.rglob("*")] == ["inner", "second"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with written_whole(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"caf\xc3\xa9\nna\xefve\n",
            r"is not UTF-8 \(byte 0xef in line 2\): convert it, .*iconv -f latin1 -t utf-8 a.txt",
        ),
        (b"PNG\0\1\2", r"is a binary file"),
    ],
)
def test_text_that_is_none_is_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(BadFile, match=message) as caught:
        read_text(tmp_path / "a.txt")
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(tmp_path / "a.txt") == "abc"


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="does not exist"):
        read_bytes(tmp_path / "none")
    with pytest.raises(BadFile, match="is a folder; a file is needed"):
        read_bytes(tmp_path)


def test_damaged_json_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1,\n "b": }\n')
    with pytest.raises(BadFile, match=r"a\.json is not JSON: .* in line 2$"):
        read_json(tmp_path / "a.json")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()
