"""The C++ of this package, compiled by g++ or clang++ at first use (about a second) and stored in the user's cache.

Its sha256 lies beside it: loading a damaged library would end the process. It needs no torch header: tensors are passed
as pointers, so one library serves every torch version.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from fewshot.base.errors import BadFile
from fewshot.base.files import read_text, sha256_file, write_text, written_whole
from fewshot.base.machine import cache_folder, processor_features

FOLDER = Path(__file__).parent / "cpp"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared")


@dataclasses.dataclass(frozen=True)
class Library:
    """The compiled kernel, or why there is none."""

    code: ctypes.CDLL | None
    problem: str | None


@cache
def library() -> Library:
    """Compile the sources, or take them from the cache; done once in a process."""
    compiler = next(
        (path for name in (os.environ.get("CXX", ""), "g++", "clang++") if (path := shutil.which(name))), None
    )
    if compiler is None:
        return Library(None, "there is no C++ compiler (g++ or clang++) on the PATH")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
        texts = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())]
        what = "\n".join([*texts, *FLAGS, version, processor_features()])
        target = cache_folder() / f"native-{hashlib.sha256(what.encode()).hexdigest()[:16]}.so"
        if not _is_whole(target):
            _compile(compiler, target)
        return Library(ctypes.CDLL(str(target)), None)
    except subprocess.CalledProcessError as error:
        return Library(None, f"{compiler} could not compile {FOLDER.name}/*.cpp: {error.stderr.strip()[:200]}")
    except (OSError, BadFile) as error:
        return Library(None, f"the compiled kernel cannot be stored or loaded: {error}")


def _is_whole(target: Path) -> bool:
    """Return whether the library is there, byte for byte as it was compiled."""
    try:
        return read_text(_digest_file(target)) == sha256_file(target)
    except (OSError, BadFile):
        return False


def _compile(compiler: str, target: Path) -> None:
    with written_whole(target) as partial:
        sources = map(str, sorted(FOLDER.glob("*.cpp")))
        subprocess.run([compiler, *FLAGS, *sources, "-o", str(partial)], capture_output=True, text=True, check=True)
        digest = sha256_file(partial)
    write_text(_digest_file(target), digest)


def _digest_file(target: Path) -> Path:
    return target.with_suffix(".sha256")
