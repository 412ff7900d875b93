from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import fewshot

NAMES = [  # what others have written down; a name that goes breaks their programs
    "FewshotError", "GPT", "GPTConfig", "PRESETS", "Request", "Run", "Sampling", "complete", "complete_requests",
    "load", "load_run", "load_tokenizer", "make_task", "parse", "resume", "start", "stream", "train_on",
]  # fmt: skip


def test_no_name_is_lost_or_added_unseen() -> None:
    assert sorted(fewshot.FACE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_face_is_there(name: str) -> None:
    assert getattr(fewshot, name) is getattr(importlib.import_module(fewshot.FACE[name]), name)
    assert name in dir(fewshot)


def test_a_name_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'load_rum'; it has: FewshotError, GPT, GPTConfig"):
        _ = fewshot.load_rum


def test_importing_the_face_imports_nothing_heavy() -> None:
    script = "import sys, fewshot; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_package_can_be_run() -> None:
    run = subprocess.run([sys.executable, "-m", "fewshot", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"fewshot {fewshot.__version__}\n"


@pytest.mark.slow
def test_a_user_s_program_passes_mypy_strict(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "from fewshot.face.run import Run, load, train_on\n\n\n"
        "def longest(path: str) -> str:\n"
        "    run: Run = load(path)\n"
        "    texts = [run.generate('a', max_tokens=4, temperature=0.5, seed=seed) for seed in range(3)]\n"
        "    total: float = sum(value for _, value in run.logprobs('a b'))\n"
        "    values = [result.value for result in run.evaluate('novel_symbols', shots=[0, 8])]\n"
        "    print(total, values, run.config.n_ctx, train_on('a.txt', 'out', n_tokens=1000).weights)\n"
        "    return max(texts, key=len)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
    root = Path(__file__).parents[1]
    done = subprocess.run([*command, "--config-file", "", str(program)], capture_output=True, text=True,
                          cwd=tmp_path, env={"MYPYPATH": str(root / "src"), "PATH": ""}, check=False)  # fmt: skip
    assert done.stdout == ""
    wrong = program.read_text().replace("seed=seed", "sed=seed")
    program.write_text(wrong)
    done = subprocess.run([*command, "--config-file", "", str(program)], capture_output=True, text=True,
                          cwd=tmp_path, env={"MYPYPATH": str(root / "src"), "PATH": ""}, check=False)  # fmt: skip
    assert 'Unexpected keyword argument "sed"' in done.stdout
