"""The machine that this runs on: its processor, and a folder for what is worth keeping on it between runs."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where compiled kernels and measured speeds are kept: $FEWSHOT_CACHE, or `fewshot` in the user's cache."""
    chosen = os.environ.get("FEWSHOT_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewshot"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"fewshot-{os.getuid()}"


def processor_name() -> str:
    """Such as "AMD EPYC"."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def processor_features() -> str:
    """All that a compiler's -march=native looks at: what is compiled for one processor must not run on another."""
    lines = sorted({line for line in _cpuinfo() if line.startswith(("model name", "flags", "Features"))})
    return "\n".join([platform.machine(), *lines])


def _cpuinfo() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []
