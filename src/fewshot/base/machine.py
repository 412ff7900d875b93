"""The machine that this runs on: processors, free memory, and a folder for what is kept on it between runs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import tempfile
from pathlib import Path

from fewshot.base.errors import BadValue

MEMORY_UNKNOWN = 4 * 2**30  # bytes, where a system does not tell: the smallest machine worth training on


def cache_folder() -> Path:
    """Return the folder for compiled kernels and measured speeds: $FEWSHOT_CACHE, or `fewshot` in the user's cache."""
    chosen = os.environ.get("FEWSHOT_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewshot"
    except RuntimeError:  # a user without a home
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir()) / f"fewshot-{user}"


def n_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Return the bytes that this process can still take: the least that system, control group and limits leave."""
    return max(0, min([_free_of_system(), *_left_in_cgroup(), *_left_of_limit()]))


def give_back_memory() -> None:
    """Return freed memory to the system at once, where the C library can: it keeps hundreds of megabytes otherwise."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def check_fits(n_bytes: float, what: str, way_out: str = "take less", *, free_bytes: int | None = None) -> None:
    """Raise `BadValue` if `what` needs more memory than `free_bytes`, or than this process can take.

    Called before anything is made, so that sizes that cannot work are refused at once.
    """
    free_bytes = free_memory() if free_bytes is None else free_bytes
    if not n_bytes <= free_bytes:  # a NaN does not fit either
        raise BadValue(f"{what} needs {in_bytes(n_bytes)} of memory, {in_bytes(free_bytes)} are free: {way_out}")


def in_bytes(n: float) -> str:
    """Return a number of bytes in words, such as "4.1 GB"; beyond petabytes as a power of ten."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.0f} PB" if n < 1e6 else f"{n * 1e15:.1e} bytes"


def _free_of_system() -> int:
    """Return bytes that the system can give, page cache included; a quarter of all memory if it does not tell."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (ValueError, OSError, AttributeError):
        return MEMORY_UNKNOWN


def _left_in_cgroup() -> list[int]:
    """Return bytes left below the limits of this process's control group and those above it, in either version."""
    left = []
    for line in _lines("/proc/self/cgroup"):
        _, controllers, inside = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        if controllers:
            root, names = (
                Path("/sys/fs/cgroup/memory"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        else:
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        folder = root / inside.lstrip("/")
        for place in [folder, *folder.parents][: len(folder.parts) - len(root.parts) + 1]:
            left += _left_here(place, *names)
    return left


def _left_here(group: Path, most_name: str, used_name: str, cache_name: str) -> list[int]:
    """Return bytes left in one control group, its page cache counted as free; an empty list if it has no limit."""
    most, used = ("".join(_lines(group / name)).strip() for name in (most_name, used_name))
    if not most.isdigit() or not used.isdigit():
        return []
    cached = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith(f"{cache_name} ")]
    return [int(most) - int(used) + sum(cached)]


def _left_of_limit() -> list[int]:
    """Return bytes left below `ulimit -v`; an empty list if there is no such limit."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    taken = _lines("/proc/self/statm")
    return [soft - (int(taken[0].split()[0]) * resource.getpagesize() if taken else 0)]


def processor_name() -> str:
    """Return the processor's name, such as "AMD EPYC"."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def processor_features() -> str:
    """Return everything that a compiler's -march=native depends on.

    Code compiled for one processor must not run on another.
    """
    lines = sorted({line for line in _cpuinfo() if line.startswith(("model name", "flags", "Features"))})
    return "\n".join([platform.machine(), *lines])


def _cpuinfo() -> list[str]:
    return _lines("/proc/cpuinfo")


def _lines(path: str | Path) -> list[str]:
    """Return the lines of a small file of the system; none where it cannot be read."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
