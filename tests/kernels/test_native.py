from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fewshot.kernels import native, reference
from fewshot.kernels.need import Need
from fewshot.patterns.pattern import Banded, Fixed, Pattern, PerHead, Strided


def need(pattern: Pattern, **changes: object) -> Need:
    plain = {"device": "cpu", "dtype": torch.float32, "documents": False, "dropout": 0.0, "training": True}
    return Need(pattern=pattern, n_queries=8, n_keys=8, **{**plain, **changes})


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
    assert native.supports(need(Banded(3))) == "there is no C++ compiler (g++ or clang++) on the PATH"


def test_a_compiler_that_fails_is_named_with_its_message(
    fresh_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken++"
    broken.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert re.search(r"broken\+\+ could not compile native.cpp: no such flag", str(native.supports(need(Banded(3)))))
    assert list(fresh_library.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_reason_not_a_crash(
    fresh_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_compiler()
    native.library.cache_clear()
    fresh_library.joinpath("file").write_text("not a folder")
    monkeypatch.setenv("FEWSHOT_CACHE", str(fresh_library / "file"))
    assert "cannot be kept or loaded" in str(native.supports(need(Banded(3))))


def test_the_library_is_compiled_once_and_then_found(fresh_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    (compiled,) = fresh_library.iterdir()
    native.library.cache_clear()

    def no_compiling(command: list[str], **kwargs: object) -> object:
        assert "--version" in command
        return run(command, **kwargs)

    run = native.subprocess.run
    monkeypatch.setattr(native.subprocess, "run", no_compiling)
    assert native.library().problem is None
    assert list(fresh_library.iterdir()) == [compiled]


def test_what_it_cannot_do_is_said() -> None:
    assert native.supports(need(Banded(3), device="cuda")) == "it computes on the CPU, not on cuda"
    assert native.supports(need(Banded(3), dtype=torch.float64)) == "it computes float32 and bfloat16, not float64"
    assert native.supports(need(Banded(3), dropout=0.1)) == "it has no dropout on attention weights"
    assert native.supports(need(Banded(3), second_order=True)) == "it has no second derivative"


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


def test_a_damaged_library_is_compiled_again(
    fresh_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_compiler()
    (compiled,) = fresh_library.iterdir()
    damaged = tmp_path / "other" / compiled.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"")
    monkeypatch.setenv("FEWSHOT_CACHE", str(damaged.parent))
    native.library.cache_clear()
    assert native.library().problem is None
    assert damaged.stat().st_size == compiled.stat().st_size


def test_a_single_column_may_have_any_stride() -> None:
    needs_compiler()
    v = torch.randn(2 * 388 + 1).as_strided((1, 2, 194, 1), (1, 194, 1, 388))
    q, k = torch.randn(2, 1, 2, 194, 1).unbind(0)
    torch.testing.assert_close(native.attend(q, k, v, Banded(9)), reference.attend(q, k, v, Banded(9)))
