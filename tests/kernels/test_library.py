"""The C++ of the package is compiled once, found again, and never loaded where a byte of it has changed."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import fewshot.kernels.library as library_module
from fewshot.kernels.library import library


@pytest.fixture
def fresh_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, no memory of what this process compiled, and a compiler that is quick: it optimises nothing."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    compiler = tmp_path / "quick++"
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which("g++") or "clang++"} "$@" -O0\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    library.cache_clear()
    yield tmp_path / "cache"
    library.cache_clear()


def needs_compiler() -> None:
    if library().problem:
        pytest.skip(f"the native kernel is not available: {library().problem}")


def test_without_a_compiler_the_reason_is_given(fresh_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fresh_library))
    monkeypatch.setenv("CXX", "")
    assert library().problem == "there is no C++ compiler (g++ or clang++) on the PATH"


def test_a_compiler_that_fails_is_named_with_its_message(
    fresh_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken++"
    broken.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert re.search(r"broken\+\+ could not compile cpp/\*\.cpp: no such flag", str(library().problem))
    assert list(fresh_library.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_reason_not_a_crash(
    fresh_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_compiler()
    library.cache_clear()
    fresh_library.joinpath("file").write_text("not a folder")
    monkeypatch.setenv("FEWSHOT_CACHE", str(fresh_library / "file"))
    assert "cannot be stored or loaded" in str(library().problem)


def test_the_library_is_compiled_once_and_then_found(fresh_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    kept = sorted(fresh_library.iterdir())
    assert [file.suffix for file in kept] == [".sha256", ".so"]
    library.cache_clear()

    def no_compiling(command: list[str], **kwargs: object) -> object:
        assert "--version" in command
        return run(command, **kwargs)

    run = library_module.subprocess.run
    monkeypatch.setattr(library_module.subprocess, "run", no_compiling)
    assert library().problem is None
    assert sorted(fresh_library.iterdir()) == kept


def flipped(data: bytes, at: int) -> bytes:
    place = at % len(data)
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[Path, Path], object]] = {  # library, digest
    "empty": lambda code, digest: code.write_bytes(b""),
    "cut in half": lambda code, digest: code.write_bytes(code.read_bytes()[: code.stat().st_size // 2]),
    "last byte cut off": lambda code, digest: code.write_bytes(code.read_bytes()[:-1]),
    "cut to whole pages": lambda code, digest: code.write_bytes(code.read_bytes()[:8192]),
    "first byte flipped": lambda code, digest: code.write_bytes(flipped(code.read_bytes(), 0)),
    "header flipped": lambda code, digest: code.write_bytes(flipped(code.read_bytes(), 40)),
    "middle flipped": lambda code, digest: code.write_bytes(flipped(code.read_bytes(), code.stat().st_size // 2)),
    "last byte flipped": lambda code, digest: code.write_bytes(flipped(code.read_bytes(), -1)),
    "zeros": lambda code, digest: code.write_bytes(bytes(code.stat().st_size)),
    "longer": lambda code, digest: code.write_bytes(code.read_bytes() + b"\0"),
    "gone": lambda code, digest: code.unlink(),
    "a link to nothing": lambda code, digest: (code.unlink(), code.symlink_to("nothing.so")),
    "digest gone": lambda code, digest: digest.unlink(),
    "digest empty": lambda code, digest: digest.write_text(""),
    "digest cut": lambda code, digest: digest.write_text(digest.read_text()[:10]),
    "digest flipped": lambda code, digest: digest.write_bytes(flipped(digest.read_bytes(), 5)),
    "digest of something else": lambda code, digest: digest.write_text("0" * 64),
    "both of something else": lambda code, digest: (code.write_bytes(b"else"), digest.write_text("0" * 64)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_library_is_never_loaded_but_compiled_again(
    fresh_library: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path, Path], object]
) -> None:
    """Loading it would end the process of the tests, so what is loaded is looked at, and compiling is copying."""
    whole, loaded, n_compiled = b"\x7fELF" + bytes(range(256)) * 100, [], 0

    def compile_or_tell_version(command: list[str], **kwargs: object) -> SimpleNamespace:
        nonlocal n_compiled
        if "-o" in command:
            Path(command[-1]).write_bytes(whole)
            n_compiled += 1
        return SimpleNamespace(stdout="a compiler")

    monkeypatch.setattr(library_module.shutil, "which", lambda name: "g++")
    monkeypatch.setattr(library_module.subprocess, "run", compile_or_tell_version)
    monkeypatch.setattr(library_module.ctypes, "CDLL", lambda path: loaded.append(Path(path).read_bytes()))
    library()
    digest, code = sorted(fresh_library.iterdir())
    damage(code, digest)
    for _ in range(2):  # the second time it is found
        library.cache_clear()
        assert library().problem is None
    assert loaded == [whole] * 3
    assert n_compiled == 2


def test_a_damaged_library_is_mended_by_the_compiler(fresh_library: Path) -> None:
    needs_compiler()
    digest, code = sorted(fresh_library.iterdir())
    whole = code.read_bytes()
    code.unlink()  # a new file: the old one is in use
    code.write_bytes(whole[: len(whole) // 2])
    library.cache_clear()
    assert library().problem is None
    assert digest.read_text() == hashlib.sha256(code.read_bytes()).hexdigest()
    assert code.stat().st_size == len(whole)
