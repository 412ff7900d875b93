from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import fewshot


@pytest.mark.parametrize("name", sorted(fewshot.FACE))
def test_every_name_of_the_face_is_there(name: str) -> None:
    assert getattr(fewshot, name) is getattr(importlib.import_module(fewshot.FACE[name]), name)
    assert name in dir(fewshot)


def test_a_name_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'load_rum'; it has: GPT, GPTConfig"):
        _ = fewshot.load_rum


def test_importing_the_face_imports_nothing_heavy() -> None:
    script = "import sys, fewshot; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_package_can_be_run() -> None:
    run = subprocess.run([sys.executable, "-m", "fewshot", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"fewshot {fewshot.__version__}\n"
