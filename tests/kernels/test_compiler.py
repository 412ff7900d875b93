from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.kernels.compiler import compiler_problem


def test_a_machine_without_a_compiler_gives_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert compiler_problem("cpu") == "no C++ compiler (g++ or clang++) on the PATH"
    assert compiler_problem("cuda") is None


def test_missing_headers_of_python_give_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "g++").write_text("")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert compiler_problem("cpu") == f"Python's headers are missing ({tmp_path / 'Python.h'})"
