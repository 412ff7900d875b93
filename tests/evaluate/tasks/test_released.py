from __future__ import annotations

import gzip
import json
from functools import partial

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.tasks.released import read_released, read_rows, released_file

packed = partial(gzip.compress, mtime=0)  # no clock in it: every worker must name a parametrised case alike
ROW = {"context": "\n\nQ: What is 1 plus 2?\n\nA:", "completion": " 3"}


def test_plain_and_gzipped_files_read_alike(tmp_path):
    text = json.dumps(ROW) + "\n"
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.jsonl.gz").write_bytes(packed(text.encode()))
    plain, zipped = read_released(tmp_path / "a.jsonl"), read_released(tmp_path / "b.jsonl.gz")
    assert plain == zipped
    assert (plain[0].context, plain[0].completions) == (ROW["context"], (" 3",))


def test_a_line_separator_inside_a_string_does_not_end_the_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two"}\n', encoding="utf-8")
    assert read_rows(tmp_path / "a.jsonl", "text") == [{"text": "one\u2028two"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no examples"),
        ('{"context": "a", "completion": "b"}\n{broken', "line 2 is not JSON"),
        ('{"context": "a"}', "line 1 must be an object with text in 'context', 'completion'"),
        ("[1]", "line 1 must be an object"),
    ],
)
def test_a_bad_row_is_named(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(BadFile, match=message):
        read_released(tmp_path / "a.jsonl")


@pytest.mark.parametrize("data", [b"no gzip at all", packed(b"some text")[:-9]])
def test_a_damaged_gzip_is_named(tmp_path, data):
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(BadFile, match="damaged"):
        read_released(tmp_path / "a.jsonl.gz")


def test_a_released_file_is_found_zipped_or_not(tmp_path):
    assert released_file(tmp_path, "x.jsonl") is None
    (tmp_path / "x.jsonl.gz").touch()
    assert released_file(tmp_path, "x.jsonl") == tmp_path / "x.jsonl.gz"
    with pytest.raises(BadFile, match="is not a folder"):
        released_file(tmp_path / "absent", "x.jsonl")
