from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fewshot.kernels import native, reference
from fewshot.kernels.interface import Requirements
from fewshot.patterns.pattern import Banded, Fixed, Pattern, PerHead, Strided


def requirements(pattern: Pattern, **changes: object) -> Requirements:
    plain = {"device": "cpu", "dtype": torch.float32, "documents": False, "dropout": 0.0, "training": True}
    return Requirements(pattern=pattern, n_queries=8, n_keys=8, **{**plain, **changes})


@pytest.fixture
def fresh_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and no memory of what this process compiled."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    native.library.cache_clear()
    yield tmp_path / "cache"
    native.library.cache_clear()


def needs_compiler() -> None:
    if native.library().problem:
        pytest.skip(f"the native kernel is not available: {native.library().problem}")


def test_without_a_compiler_the_reason_is_given(fresh_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fresh_library))
    monkeypatch.setenv("CXX", "")
    assert native.supports(requirements(Banded(3))) == "there is no C++ compiler (g++ or clang++) on the PATH"


def test_a_compiler_that_fails_is_named_with_its_message(
    fresh_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken++"
    broken.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert re.search(
        r"broken\+\+ could not compile native.cpp: no such flag", str(native.supports(requirements(Banded(3))))
    )
    assert list(fresh_library.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_reason_not_a_crash(
    fresh_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_compiler()
    native.library.cache_clear()
    fresh_library.joinpath("file").write_text("not a folder")
    monkeypatch.setenv("FEWSHOT_CACHE", str(fresh_library / "file"))
    assert "cannot be stored or loaded" in str(native.supports(requirements(Banded(3))))


def test_the_library_is_compiled_once_and_then_found(fresh_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    kept = sorted(fresh_library.iterdir())
    assert [file.suffix for file in kept] == [".sha256", ".so"]
    native.library.cache_clear()

    def no_compiling(command: list[str], **kwargs: object) -> object:
        assert "--version" in command
        return run(command, **kwargs)

    run = native.subprocess.run
    monkeypatch.setattr(native.subprocess, "run", no_compiling)
    assert native.library().problem is None
    assert sorted(fresh_library.iterdir()) == kept


def test_what_it_cannot_do_is_said() -> None:
    assert native.supports(requirements(Banded(3), device="cuda")) == "it computes on the CPU, not on cuda"
    assert (
        native.supports(requirements(Banded(3), dtype=torch.float64)) == "it computes float32 and bfloat16, not float64"
    )
    assert native.supports(requirements(Banded(3), dropout=0.1)) == "it has no dropout on attention weights"
    assert native.supports(requirements(Banded(3), second_order=True)) == "it has no second derivative"


@pytest.mark.parametrize("K", [1, 16, 40, 64, 80, 100, 128])
@pytest.mark.parametrize("pattern", [Banded(70), PerHead(Fixed(32, 4), Strided(9)), Banded(5) | Strided(7)], ids=str)
def test_every_head_width_and_memory_layout(K: int, pattern: object) -> None:
    needs_compiler()
    B, H, T = 2, 3, 150
    torch.manual_seed(K)
    qkv = torch.randn(B, T, 3, H, K, requires_grad=True)
    weights = torch.randn(B, H, T, K).mT.contiguous().mT  # a gradient whose last stride is not 1
    gradients = []
    for attend in (native.attend, reference.attend):
        out = attend(*qkv.permute(2, 0, 3, 1, 4).unbind(0), pattern)
        gradients.append(torch.autograd.grad((out * weights).sum(), qkv)[0])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_no_number_stays_none_so_that_a_diverged_run_is_seen(which: int) -> None:
    needs_compiler()
    qkv = [torch.randn(1, 1, 100, 16) for _ in range(3)]
    qkv[which][0, 0, 70, 3] = torch.nan
    result = native.attend(*qkv, Banded(20))
    assert result[0, 0, 70].isnan().any()


def test_large_scores_neither_overflow_nor_vanish() -> None:
    needs_compiler()
    torch.manual_seed(0)
    q, k, v = (size * torch.randn(1, 2, 300, 16) for size in (30, 30, 1))
    exact = reference.attend(q.double(), k.double(), v.double(), Fixed(64, 8)).float()  # scores of some thousands
    torch.testing.assert_close(native.attend(q, k, v, Fixed(64, 8)), exact, rtol=0, atol=5e-3)


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

    monkeypatch.setattr(native.shutil, "which", lambda name: "g++")
    monkeypatch.setattr(native.subprocess, "run", compile_or_tell_version)
    monkeypatch.setattr(native.ctypes, "CDLL", lambda path: loaded.append(Path(path).read_bytes()))
    native.library()
    digest, code = sorted(fresh_library.iterdir())
    damage(code, digest)
    for _ in range(2):  # the second time it is found
        native.library.cache_clear()
        assert native.library().problem is None
    assert loaded == [whole] * 3
    assert n_compiled == 2


def test_a_damaged_library_is_mended_by_the_compiler(fresh_library: Path) -> None:
    needs_compiler()
    digest, code = sorted(fresh_library.iterdir())
    whole = code.read_bytes()
    code.unlink()  # a new file: the old one is in use
    code.write_bytes(whole[: len(whole) // 2])
    native.library.cache_clear()
    assert native.library().problem is None
    assert digest.read_text() == hashlib.sha256(code.read_bytes()).hexdigest()
    assert code.stat().st_size == len(whole)


def test_a_single_column_may_have_any_stride() -> None:
    needs_compiler()
    v = torch.randn(2 * 388 + 1).as_strided((1, 2, 194, 1), (1, 194, 1, 388))
    q, k = torch.randn(2, 1, 2, 194, 1).unbind(0)
    torch.testing.assert_close(native.attend(q, k, v, Banded(9)), reference.attend(q, k, v, Banded(9)))
