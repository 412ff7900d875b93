"""Text at addresses: in fsspec's own memory, and from a server on this machine."""

from __future__ import annotations

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


def is_text(name: str) -> bool:
    return name.endswith(".txt")


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
    monkeypatch.setattr("fewshot.corpus.remote._told", set())  # as another process
    lines, say = said()
    assert (fetch("memory://books", wanted=is_text, say=say) / "a.txt").read_text() == "one"
    fetch("memory://books", wanted=is_text, say=say)
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
    with pytest.raises(BadFile, match="cannot be fetched: the line is down; whole files stay, try again"):
        fetch("memory://books", wanted=is_text)
    monkeypatch.setattr(type(system), "get_file", get)
    lines, say = said()
    fetch("memory://books", wanted=is_text, say=say)
    assert "fetching 1 of 2 files" in lines[0]
    assert len([path for path in kept_at("memory://books").rglob("*") if path.is_file()]) == 2


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("memory://nowhere", BadFile, "memory://nowhere does not exist"),
        ("memory://books/c.bin", BadFile, "c.bin holds no file of text with a suffix that is read"),
        ("s3://", BadValue, "s3:// names nothing"),
        ("file:///books", BadValue, "file:///books is on this machine: give its path"),
        ("github://a/b", BadFile, "github://a/b cannot be fetched: "),
        ("nosuch://a/b", BadFile, "Protocol not known"),
        ("gdrive://a/b", BadValue, "gdrive://a/b cannot be opened: .*install"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(address: str, error: type[FewshotError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_paths([address])


class Answers(http.server.BaseHTTPRequestHandler):
    """A page that is whole, one that is cut short, and one that is not for everyone."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(403 if "secret" in self.path else 200)
        self.send_header("Content-Length", "1000" if "cut" in self.path else "9")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"from afar")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    pytest.importorskip("aiohttp")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_file_comes_from_a_server(server: str) -> None:
    assert [document.text for document in read_documents([f"{server}/page.txt?version=2"])] == ["from afar"]


@pytest.mark.parametrize("name", ["secret.txt", "cut.txt"])
def test_what_a_server_refuses_or_cuts_short_is_one_line_and_leaves_nothing(server: str, name: str) -> None:
    with pytest.raises(BadFile, match=f"{name} cannot be fetched: .*; whole files stay, try again"):
        check_paths([f"{server}/{name}"])
    assert not kept_at(f"{server}/{name}").exists()


@pytest.mark.usefixtures("memory")
def test_paths_here_are_checked_before_anything_is_fetched() -> None:
    with pytest.raises(BadFile, match=r"nosuch\.txt does not exist"):
        check_paths(["memory://books", "nosuch.txt"])
    assert not kept_at("memory://books").exists()


def test_two_addresses_of_one_name_are_kept_apart() -> None:
    assert kept_at("s3://a/text.txt").name == "text.txt"
    assert kept_at("s3://a/text.txt") != kept_at("s3://b/text.txt")
    assert kept_at("memory://a/") == kept_at("memory://a")


@pytest.mark.parametrize("address", ["http://host/..", "http://host:80", "s3://a/whole", "x://a/CON?.txt", "s3://a/ ."])
def test_whatever_the_name_it_is_kept_in_a_folder_of_its_own(cache: Path, address: str) -> None:
    place = kept_at(address)
    assert place.resolve().relative_to(cache.resolve()).parts[:1] == ("text",)
    assert place.parent.name == "content"
    assert not set(place.name) & set('<>:"|?*')
