"""Text at addresses: in fsspec's own memory, and from a server on this machine."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from fewshot.base.errors import BadFile, BadValue, FewshotError
from fewshot.corpus.remote import fetch, is_remote, kept_at
from fewshot.corpus.sources import check_paths, read_documents


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.pipe({"/books/a.txt": b"one", "/books/deep/b.txt": b"two", "/books/c.bin": b"no text"})
    yield system
    system.rm("/books", recursive=True)


def said() -> tuple[list[str], Any]:
    lines: list[str] = []
    return lines, lines.append


@pytest.mark.parametrize(
    ("path", "remote"),
    [("s3://a/b", True), ("hf://datasets/a/b.parquet", True), ("C:\\books", False), ("books", False), ("", False)],
)
def test_an_address_is_told_from_a_path(path: str, remote: bool) -> None:
    assert is_remote(path) is remote
    assert not is_remote(Path(path))


@pytest.mark.usefixtures("memory")
def test_a_folder_elsewhere_is_read_as_one_here_and_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [document.text for document in read_documents(["memory://books"], on_skip=lambda line: None)] == [
        "one",
        "two",
    ]
    fsspec.filesystem("memory").pipe("/books/a.txt", b"changed")
    monkeypatch.setattr("fewshot.corpus.remote._fetched", set())  # as another process
    lines, say = said()
    assert (fetch("memory://books", say=say) / "a.txt").read_text() == "one"
    fetch("memory://books", say=say)
    assert [line for line in lines if "fetched before" in line] == lines[:1] == lines


@pytest.mark.usefixtures("memory")
def test_a_fetch_that_was_stopped_goes_on_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fsspec.filesystem("memory")
    get, fetched = type(system).get_file, []

    def fails_at_the_second(self: Any, source: str, target: str, **words: Any) -> None:
        if len(fetched) == 1:
            raise OSError("the line is down")
        fetched.append(source)
        get(self, source, target, **words)

    monkeypatch.setattr(type(system), "get_file", fails_at_the_second)
    with pytest.raises(BadFile, match=r"memory://books cannot be fetched: the line is down; .* try again"):
        fetch("memory://books")
    monkeypatch.setattr(type(system), "get_file", get)
    lines, say = said()
    fetch("memory://books", say=say)
    assert "fetching 2 of 3 files" in lines[0]
    assert len([path for path in kept_at("memory://books").rglob("*") if path.is_file()]) == 3


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("memory://nowhere", BadFile, "memory://nowhere does not exist"),
        ("nosuch://a/b", BadFile, "Protocol not known"),
        ("gdrive://a/b", BadValue, "gdrive://a/b cannot be opened: .*install"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(address: str, error: type[FewshotError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_paths([address])


def test_a_file_comes_from_a_server(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("from afar")
    pytest.importorskip("aiohttp")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/page.txt"
        assert [document.text for document in read_documents([address])] == ["from afar"]
        server.shutdown()


def test_two_addresses_of_one_name_are_kept_apart() -> None:
    assert kept_at("s3://a/text.txt").name == "text.txt"
    assert kept_at("s3://a/text.txt") != kept_at("s3://b/text.txt")
