from __future__ import annotations

import bz2
import gzip
import json
import zipfile
from functools import partial

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.data.files import DataFolder, read_released, require_data

packed = partial(gzip.compress, mtime=0)  # no clock in it: every worker must name a parametrised case alike
ROW = {"context": "\n\nQ: What is 1 plus 2?\n\nA:", "completion": " 3"}


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl", bytes), ("a.jsonl.gz", packed), ("a.jsonl.bz2", bz2.compress)])
def test_a_file_is_found_by_the_end_of_its_path_packed_or_not_in_a_folder_or_an_archive(tmp_path, name, pack):
    data = pack((json.dumps(ROW) + "\n").encode())
    deep = tmp_path / "folder" / "original" / name
    deep.parent.mkdir(parents=True)
    deep.write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(f"__MACOSX/original/{name}", b"junk")
        archive.writestr(f"dummy/original/{name}", data)
    for where in (tmp_path / "folder", tmp_path / "x.zip"):
        found = DataFolder(where).require("t", "absent.jsonl", "original/a.jsonl")
        (example,) = read_released(found)
        assert (example.context, example.completions) == (ROW["context"], (ROW["completion"],))
        assert DataFolder(where).find("nal/a.jsonl") is None  # parts of a path are compared whole
        assert [one.name for one in DataFolder(where).under("original")] == [found.name]


def test_a_line_separator_inside_a_string_does_not_end_the_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two"}\n', encoding="utf-8")
    assert DataFolder(tmp_path).find("a.jsonl").rows("text") == [{"text": "one\u2028two"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no examples"),
        ('{"context": "a", "completion": "b"}\n{broken', "line 2 is not JSON"),
        ('{"context": "a"}', "line 1 must be an object with 'context', 'completion'"),
        ("[1]", "line 1 must be an object"),
    ],
)
def test_a_bad_row_is_named(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(BadFile, match=message):
        read_released(DataFolder(tmp_path).find("a.jsonl"))


def test_linked_folders_are_entered_once_and_never_in_a_circle(tmp_path):
    there, inside = tmp_path / "elsewhere", tmp_path / "data"
    (there / "deep").mkdir(parents=True)
    (there / "deep" / "a.jsonl").write_text(json.dumps(ROW))
    inside.mkdir()
    (inside / "linked").symlink_to(there)
    (inside / "again").symlink_to(there / "deep")
    (there / "back").symlink_to(inside)
    (there / "deep" / "self").symlink_to(there / "deep")
    (inside / "nowhere").symlink_to(tmp_path / "absent")
    (inside / "b.jsonl").symlink_to(there / "deep" / "a.jsonl")
    data = DataFolder(inside)
    assert data.names == ["b.jsonl", "again/a.jsonl", "linked/deep/a.jsonl"]
    for name in ("a.jsonl", "b.jsonl", "linked/deep/a.jsonl"):
        assert read_released(data.require("t", name))[0].context == ROW["context"]
    (tmp_path / "whole").symlink_to(inside)
    assert DataFolder(tmp_path / "whole").names == data.names


def test_a_folder_without_end_of_links_is_bounded(tmp_path, set_in_module):
    set_in_module(DataFolder, "MAX_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.jsonl").touch()
    with pytest.raises(BadFile, match="holds more than 3 files"):
        _ = DataFolder(tmp_path).names


@pytest.mark.parametrize("data", [b"no gzip at all", packed(b"some text")[:-9]])
def test_a_damaged_gzip_is_named(tmp_path, data):
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(BadFile, match="damaged"):
        DataFolder(tmp_path).find("a.jsonl").text()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.bz2"])
@pytest.mark.parametrize("archived", [False, True])
def test_a_file_that_grows_without_end_is_refused(tmp_path, set_in_module, name, archived):
    set_in_module(DataFolder, "MAX_BYTES", 9_999)
    for n_bytes, refused in ((9_999, False), (10_000, True)):
        data = {"jsonl": bytes, "gz": packed, "bz2": bz2.compress}[name.rpartition(".")[2]](b" " * n_bytes)
        (tmp_path / name).write_bytes(data)
        where = tmp_path
        if archived:
            where = tmp_path / "x.zip"
            with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, data)
        file = DataFolder(where).require("t", "a.jsonl")
        if refused:
            with pytest.raises(BadFile, match=r"unpacks to more than 9,999 bytes"):
                file.text()
        else:
            assert len(file.text()) == n_bytes


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(BadFile, match="neither a folder nor a zip archive"):
        DataFolder(tmp_path / "absent")
    with pytest.raises(BadFile, match=r"piqa: .* holds no a\.jsonl or b\.jsonl"):
        DataFolder(tmp_path).require("piqa", "a.jsonl", "b.jsonl")
    with pytest.raises(BadValue, match=r"piqa needs --data FOLDER, the folder that holds a\.jsonl"):
        require_data("piqa", None, "a.jsonl")
