from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile, BadValue, NotFinite
from fewshot.base.files import (
    check_is_free,
    check_writable,
    read_bytes,
    read_json,
    read_text,
    remove_litter,
    sha256_file,
    write_json,
    write_json_lines,
    write_text,
    written_whole,
)


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
            b"cafe\nna\xefve\n",
            r"is not UTF-8 \(byte 0xef in line 2\): convert it, .*iconv -f latin1 -t utf-8 a.txt",
        ),
        (b"caf\xc3\xa9\nna\xefve\n", r"but other parts of it are: .* iconv -c -f utf-8 -t utf-8 a.txt"),
        (b"he said \x93yes\x94\n", r"byte 0x93 in line 1\): convert it, .*iconv -f cp1252 -t utf-8 a.txt"),
        ("Grüße".encode("utf-16"), r"is UTF-16: convert it, .*iconv -f utf-16 -t utf-8 a.txt"),
        ("Grüße".encode("utf-16-be").join([b"\xfe\xff", b""]), r"is UTF-16"),
        (b"PNG\0\1\2", r"is a binary file"),
        (b"text " * 5000 + b"\n\0", r"is a binary file \(a zero byte in line 2\)"),
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


DEEP = {
    "lists": "[" * 100_000,
    "closed lists": "[" * 100_000 + "]" * 100_000,
    "objects": '{"a":' * 100_000,
    "just above what we follow": "[" * 600 + "]" * 600,
    "mixed": '[{"a":' * 50_000,
    "a long number": '{"n": ' + "9" * 6000 + "}",
    "a long number in a list": "[" + "1" * 5000 + "]",
}


@pytest.mark.parametrize("name", DEEP)
def test_json_that_python_cannot_hold_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.json").write_text(DEEP[name])
    with pytest.raises(BadFile, match=r"a\.json is not usable JSON: ") as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (float("nan"), "nan"),
        ({"val_loss": float("nan")}, "val_loss = nan"),
        ({"a": [1.0, {"b": float("inf")}]}, r"a\[1\]\.b = inf"),
        ([1, (2.0, float("-inf"))], r"\[1\]\[1\] = -inf"),
    ],
)
def test_what_is_not_finite_is_never_written(tmp_path: Path, value: object, named: str) -> None:
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(NotFinite, match=rf"a\.json: {named} is not a finite number"):
        write_json(tmp_path / "a.json", value)
    with pytest.raises(NotFinite, match=named):
        write_json_lines(tmp_path / "a.json", [{"fine": 1.0}, value])
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make a device")
    write_text(device, "gone")
    check_writable(device)
    assert stat.S_ISCHR(device.stat().st_mode)
    with pytest.raises(BadFile, match="a folder cannot be written there"), written_whole(device) as inside:
        inside.mkdir()
    assert list(tmp_path.iterdir()) == [device]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join()
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for link, target in (("file", "real/a.txt"), ("dangling", "real/b.txt"), ("twice", "file")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "real" / "a.txt").write_text("old")
    write_text(tmp_path / "twice", "new")
    write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "twice").is_symlink()
    assert {path.name: path.read_text() for path in (tmp_path / "real").iterdir()} == {"a.txt": "new", "b.txt": "made"}


def test_the_rights_of_a_replaced_file_stay(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0o600)
    write_text(tmp_path / "a", "secret")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("write", [lambda path: write_text(path, "x"), check_writable])
def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path: Path, write: object) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BadFile, match=r"folder is a folder; give the name of a file$"):
        write(tmp_path / "folder")  # type: ignore[operator]
    with pytest.raises(BadFile, match=r"below cannot be written: .*file is a file, not a folder$"):
        write(tmp_path / "file" / "below")  # type: ignore[operator]
    with pytest.raises(OSError) as caught:
        write(Path("/proc/none/file"))  # type: ignore[operator]
    assert "partial" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_system_that_cannot_sync_folders_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def as_on_windows(path: str, flags: int, *rest: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", as_on_windows)
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.json.x1.partial", "data/.shard-00000.bin.y2.partial", "data/inner/.deep.z3.partial"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "half").touch()
    for name in ("a.partial", ".hidden", "data/mine.bin"):
        (tmp_path / name).touch()
    remove_litter(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a.partial", ".hidden", "data/mine.bin", "data/inner/.deep.z3.partial/half"}


def test_a_file_that_is_there_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(BadValue, match="a exists: give another name, or delete it first"):
        check_is_free(tmp_path / "a")
    check_is_free(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
