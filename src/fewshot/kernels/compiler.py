"""Check whether `torch.compile` can work on this machine."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path


def compiler_problem(device: str) -> str | None:
    """Return why `torch.compile` cannot work here, or None if it can.

    On a CPU it needs a C++ compiler and Python's headers.
    """
    if device != "cpu":
        return None
    candidates = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not any(shutil.which(name) for name in candidates if name):
        return "no C++ compiler (g++ or clang++) on the PATH"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.is_file() else f"Python's headers are missing ({header})"
