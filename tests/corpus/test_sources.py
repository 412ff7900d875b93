"""Every kind of file is read, and what cannot be read is refused in one clear line."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import shutil
import sys
import unicodedata
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from fewshot.base.errors import BadFile, BadValue
from fewshot.corpus.document import Document
from fewshot.corpus.sources import SUFFIXES, read_documents

packed = partial(gzip.compress, mtime=0)  # no clock in it: every worker must name a parametrised case alike
LINES = b'{"text": "one", "url": "a"}\n\n{"text": "z\xc3\xb6lf\\nlines", "url": "b"}\n'


def texts(*paths: Path, **options) -> list[str]:
    return [document.text for document in read_documents(paths, **options)]


def refusal(*paths: Path, **options) -> str:
    with pytest.raises(BadFile) as caught:
        texts(*paths, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def written(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def parquet(path: Path, **columns) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "A.TXT"])
def test_a_text_file_is_one_document_named_by_its_path(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "\ufeffThé end\n")
    document = Document(id=str(path), text="Thé end\n", source="mine", key=name)
    assert list(read_documents([path], source="mine")) == [document]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("a.json", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n").rstrip()),
        ("a.jsonl.gz", packed(LINES)),
        ("a.JSON.GZ", packed(LINES[:20]) + packed(LINES[20:])),
        ("a.jsonl.zst", zstandard.compress(LINES)),
        ("a.json.zst", zstandard.compress(LINES[:20]) + zstandard.compress(LINES[20:])),
    ],
)
def test_records_are_documents_named_by_their_line(tmp_path: Path, name: str, data: bytes) -> None:
    path = written(tmp_path / name, data)
    documents = [(document.id, document.text) for document in read_documents([path])]
    assert documents == [(f"{path}#1", "one"), (f"{path}#3", "zölf\nlines")]
    assert texts(path, text_field="url") == ["a", "b"]


def test_parquet_rows_are_documents_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", body=["one", None, " \n", "four"], n=[1, 2, 3, 4])
    documents = [(document.id, document.text) for document in read_documents([path], text_field="body")]
    assert documents == [(f"{path}#1", "one"), (f"{path}#4", "four")]
    assert refusal(path).endswith("has no field 'text'; it has: body, n; set text_field to one")
    assert "row 1: the field 'n' holds a int; text is needed" in refusal(path, text_field="n")


def test_zstd_lines_are_whole_across_blocks(tmp_path: Path) -> None:
    wanted = [f"{i} " + "x" * (i % 977) for i in range(5000)]
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in wanted)
    path = written(tmp_path / "a.jsonl.zst", zstandard.ZstdCompressor(level=1).compress(lines))
    assert texts(path) == wanted


def test_c4_original_files_are_read(shared_data: Path) -> None:
    folder = shared_data / "text" / "c4"
    documents = list(read_documents([folder], source="c4"))
    assert len(documents) == 30
    with gzip.open(folder / "c4-sample.01.json.gz", "rb") as lines:
        assert documents[0].text == json.loads(next(lines))["text"]
    assert documents[0].id.endswith("c4-sample.01.json.gz#1")


def test_a_folder_is_read_sorted_by_path_without_hidden_files(tmp_path: Path) -> None:
    for name in ["b.txt", "a/z.MD", "a/y.rst", ".hidden.txt", ".git/c.txt", "c.jsonl"]:
        written(tmp_path / name, '{"text": "record"}' if name.endswith("jsonl") else name)
    assert texts(tmp_path) == ["a/y.rst", "a/z.MD", "b.txt", "record"]


def test_a_folder_skips_what_it_cannot_read_and_says_so(tmp_path: Path) -> None:
    written(tmp_path / "good.txt", "good")
    written(tmp_path / "empty.txt", "")
    written(tmp_path / "binary.md", b"\0\1")
    written(tmp_path / "half.jsonl", '{"text": "kept"}\n{"text"')
    written(tmp_path / "picture.png", b"PNG")
    lines: list[str] = []
    assert texts(tmp_path, on_skip=lines.append) == ["good", "kept"]
    assert len(lines) == 4
    assert lines[0] == f"{tmp_path}: 1 files in unsupported formats are not read"
    assert lines[2] == f"skipped: {tmp_path / 'empty.txt'} is empty"
    assert lines[3].startswith(f"skipped after 1 documents: {tmp_path / 'half.jsonl'} line 2 is not JSON")


def test_many_skipped_files_are_counted_after_ten_lines(tmp_path: Path) -> None:
    for i in range(13):
        written(tmp_path / f"{i}.txt", " \n")
    written(tmp_path / "good.txt", "good")
    lines: list[str] = []
    assert texts(tmp_path, on_skip=lines.append) == ["good"]
    assert len(lines) == 11
    assert "13 files were skipped" in lines[-1]


def test_a_folder_without_a_document_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "empty.txt", "")
    assert "holds no readable document (1 files)" in refusal(tmp_path, on_skip=lambda line: None)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n\t", "holds no text"),
        ("a.txt", b"ab\0\1", "is a binary file"),
        ("a.txt", "z\xf6lf".encode("latin1"), "is not UTF-8"),
        ("a.csv", b"a,b", "has the unsupported suffix '.csv'; supported: .txt, .md"),
        ("a.gz", packed(b"a"), "has the unsupported suffix '.gz'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"', "line 2 is not JSON"),
        ("a.json", b'{\n  "text": "a"\n}', "one whole record a line is needed"),
        ("a.jsonl", b'\n["a"]', "line 2 holds a list; an object with the field 'text' is needed"),
        ("a.jsonl", b'{"body": "a", "url": "b"}', "line 1 has no field 'text'; it has: body, url"),
        ("a.jsonl", b'{"text": 3}', "line 1: the field 'text' holds a int"),
        (
            "a.jsonl",
            b'{"text": "z"}\n{"text": "z\xf6"}',
            "is not UTF-8 (byte 0xf6 in line 2): convert it, for example with: ",
        ),
        ("a.jsonl", b'{"text": "z"}\n{"text": "z\x93"}', "iconv -f cp1252 -t utf-8 a.jsonl"),
        ("a.jsonl", b'{"text": "z\xc3\xb6"}\n{"text": "z\xc3\xb6\xff"}', "iconv -c -f utf-8 -t utf-8 a.jsonl"),
        ("a.jsonl", '{"text": "z"}'.encode("utf-16"), "is UTF-16: convert it"),
        ("a b.jsonl", '{"text": "z"}'.encode("utf-16"), "iconv -f utf-16 -t utf-8 'a b.jsonl'"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not usable JSON: it is nested too deeply"),
        (
            "a.jsonl",
            b'{"text": "a", "n": ' + b"9" * 6000 + b"}",
            "line 1 is not usable JSON: it holds a number of thous",
        ),
        ("a.jsonl", b'{"text": "a", "n": ' + b"[" * 600 + b"]" * 600 + b"}", "nested more than 500 deep"),
        ("a.jsonl", b'{"text": " "}\n{"text": null}', "holds no text"),
        ("a.jsonl.gz", b"not gzip", "cannot be read"),
        ("a.jsonl.gz", packed(LINES)[:-12], "cannot be read"),
        ("a.jsonl.zst", b"not zstd", "cannot be read"),
        ("a.jsonl.zst", zstandard.compress(LINES)[:-3], "cannot be read"),
        ("a.parquet", b"PAR1 not parquet", "cannot be read"),
    ],
)
def test_a_named_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert reason in refusal(written(tmp_path / name, data))


def test_a_missing_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    first = written(tmp_path / "a.txt", "text")
    with pytest.raises(BadFile, match=r"b\.txt does not exist"):
        next(read_documents([first, tmp_path / "b.txt"]))
    with pytest.raises(BadFile, match="unsupported suffix"):
        next(read_documents([first, written(tmp_path / "c.png", "x")]))


def test_records_are_streamed_not_gathered(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "b"}\nbroken')
    assert [document.text for document in itertools.islice(read_documents([path]), 2)] == ["a", "b"]


def test_lone_surrogates_in_json_become_the_replacement_character(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "a\\ud800b \\ud83d\\ude00"}')
    assert texts(path) == ["a\ufffdb 😀"]


@pytest.mark.parametrize(("module", "name"), [("pyarrow.parquet", "a.parquet"), ("zstandard", "a.jsonl.zst")])
def test_a_missing_library_is_named_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = written(tmp_path / name, b"x")
    with pytest.raises(BadValue, match=r"pip install -e '\.\[corpus\]'"):
        texts(path)
    with pytest.raises(BadValue, match=module.split(".")[0]):
        texts(path.parent)


def test_every_suffix_is_reached_by_a_file_of_that_name(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        message = refusal(written(tmp_path / f"empty{suffix}", ""))
        assert message.endswith("is empty")


def test_the_advice_on_another_field_names_what_the_caller_has(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"content": "a"}')
    assert refusal(path).endswith("it has: content; set text_field to one")
    assert refusal(path, field_option="--text_field").endswith("set --text_field to one")
    lines: list[str] = []
    refusal(tmp_path, field_option="--data.text_field", on_skip=lines.append)
    assert lines[0].endswith("set --data.text_field to one")
    assert texts(tmp_path, text_field="content") == ["a"]


def test_bad_records_in_a_folder_are_skipped_with_the_advice_of_a_named_file(tmp_path: Path) -> None:
    written(tmp_path / "good.txt", "good")
    written(tmp_path / "number.jsonl", b'{"text": "a", "n": ' + b"9" * 6000 + b"}")
    written(tmp_path / "quotes.jsonl", b'{"text": "\x93a\x94"}')
    written(tmp_path / "wide.md", "wide".encode("utf-16"))
    lines: list[str] = []
    assert texts(tmp_path, on_skip=lines.append) == ["good"]
    assert "number of thousands of digits" in lines[0]
    assert "iconv -f cp1252 -t utf-8 quotes.jsonl" in lines[1]
    assert "iconv -f utf-16 -t utf-8 wide.md" in lines[2]


@pytest.mark.parametrize("n_others", [1, 150])
def test_a_file_name_that_is_not_utf8_gives_ids_that_are(tmp_path: Path, n_others: int) -> None:
    for number in range(n_others):
        written(tmp_path / f"{number:03}.txt", "x")
    name = os.fsdecode(b"z caf\xe9.jsonl")
    written(tmp_path / name, '{"text": "a"}\n{"text": "b"}')
    written(tmp_path / os.fsdecode(b"z\xff.txt"), b"\0")
    lines: list[str] = []
    documents = list(read_documents([tmp_path], on_skip=lines.append))
    assert [document.key for document in documents[n_others:]] == ["z caf\\xe9.jsonl#1", "z caf\\xe9.jsonl#2"]
    assert [document.id.encode() for document in documents[n_others:]] == [
        f"{tmp_path}/z caf\\xe9.jsonl#{number}".encode() for number in (1, 2)
    ]
    assert len(lines) == 1
    assert lines[0].startswith(f"skipped: {tmp_path}/z\udcff.txt is a binary file")


def keys(*paths: Path | str) -> list[str]:
    return [document.key for document in read_documents(paths)]


SPELLINGS = {
    "relative": "books",
    "with a dot": "./books",
    "with a slash": "books/",
    "with two slashes": "books//",
    "there and back": "books/deep/..",
    "above and back": "../here/books",
    "absolute": "{here}/books",
    "home": "~/books",
    "a link": "link",
    "a link to a link": "link2/",
    "moved": "elsewhere/of/another/name",
    "from within": ".",
    "from below": "..",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_keys_do_not_depend_on_how_a_folder_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    here = tmp_path / "here"
    written(here / "books/a.txt", "a")
    written(here / "books/deep/b.jsonl", '{"text": "b"}\n\n{"text": "c"}')
    (here / "link").symlink_to("books")
    (here / "link2").symlink_to(here / "link")
    shutil.copytree(here / "books", here / "elsewhere/of/another/name")
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.chdir(here / {"from within": "books", "from below": "books/deep"}.get(spelling, "."))
    assert keys(SPELLINGS[spelling].format(here=here)) == ["a.txt", "deep/b.jsonl#1", "deep/b.jsonl#3"]


@pytest.mark.parametrize("spelling", ["a.txt", "./a.txt", "x/../a.txt", "{here}/a.txt", "~/a.txt", "x/link/a.txt"])
def test_keys_do_not_depend_on_how_a_file_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    written(tmp_path / "a.txt", "a")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/link").symlink_to("..")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert keys(spelling.format(here=tmp_path)) == ["a.txt"]


def test_a_name_keeps_its_key_on_systems_that_store_accents_apart(tmp_path: Path) -> None:
    for folder, form in (("one", "NFC"), ("other", "NFD")):
        written(tmp_path / folder / unicodedata.normalize(form, "café.txt"), "a")
    assert keys(tmp_path / "one") == keys(tmp_path / "other") == ["café.txt"]


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(BadValue, match="the path of a text is empty: name a file or a folder"):
        next(read_documents([""]))


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert "a.txt is a pipe or a device" in refusal(tmp_path / "a.txt")


def test_parquet_rows_are_counted_across_batches(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", text=[f"row {number}" for number in range(1, 101)])
    documents = [(document.key, document.text) for document in read_documents([path])]
    assert documents == [(f"a.parquet#{number}", f"row {number}") for number in range(1, 101)]


def test_a_compressed_line_of_megabytes_is_whole(tmp_path: Path) -> None:
    wanted = ["short", "long " * 1_000_000, "short again"]
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in wanted)
    assert texts(written(tmp_path / "a.jsonl.zst", zstandard.compress(lines))) == wanted
