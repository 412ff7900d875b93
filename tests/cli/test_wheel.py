"""The wheel holds all that the package needs, and works where nothing else of this project is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fewshot

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_works_away_from_its_source(tmp_path: Path) -> None:
    """Dependencies are those of this environment; only the package itself comes from the wheel."""
    tree = tmp_path / "tree"  # what a build leaves behind must not come into a later one
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(tree)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert fewshot.__version__ in wheel.name
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if name.startswith("fewshot/")}
        file.extractall(tmp_path / "installed")
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "fewshot").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == source
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    def said(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    assert said("-c", "import fewshot; print(fewshot.__file__)").startswith(str(tmp_path / "installed"))
    assert fewshot.__version__ in said("-m", "fewshot", "--version")
    assert "gpt3-175b" in said("-m", "fewshot", "plan", "all").lower()
