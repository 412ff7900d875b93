from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot.base import machine
from fewshot.base.errors import BadValue


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "mine"))
    assert machine.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("FEWSHOT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_folder() == tmp_path / "fewshot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.cache_folder() == tmp_path / ".cache" / "fewshot"


def test_a_user_without_a_home_has_a_cache_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("FEWSHOT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine.Path, "home", homeless)
    assert machine.cache_folder().name.startswith("fewshot-")


def test_the_processor_is_named() -> None:
    assert machine.processor_name()
    assert machine.processor_features()


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.n_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS, Windows
    assert machine.n_cores() == os.cpu_count()


def test_free_memory_is_the_least_of_all_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": ["MemTotal: 9000 kB", "MemAvailable: 5000 kB"],
        "/proc/self/cgroup": ["0::/jobs/one"],
        "/sys/fs/cgroup/jobs/one/memory.max": ["max"],
        "/sys/fs/cgroup/jobs/one/memory.current": ["1000"],
        "/sys/fs/cgroup/jobs/memory.max": ["4000000"],
        "/sys/fs/cgroup/jobs/memory.current": ["3000000"],
        "/sys/fs/cgroup/jobs/memory.stat": ["anon 7", "inactive_file 500000"],
    }
    monkeypatch.setattr(machine, "_lines", lambda path: files.get(str(path), []))
    monkeypatch.setattr(machine, "_left_of_limit", lambda: [])
    assert machine.free_memory() == 1_500_000  # what another group of the same job took is taken
    files["/proc/self/cgroup"] = ["5:cpu:/x", "4:memory:/jobs"]
    files["/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes"] = ["700"]
    files["/sys/fs/cgroup/memory/jobs/memory.usage_in_bytes"] = ["600"]
    assert machine.free_memory() == 100
    monkeypatch.setattr(machine, "_left_of_limit", lambda: [50])
    assert machine.free_memory() == 50
    files.clear()
    monkeypatch.setattr(machine, "_left_of_limit", lambda: [])
    assert machine.free_memory() > 2**20  # a system that tells nothing of it


def test_a_limit_on_the_address_space_counts() -> None:
    script = "from fewshot.base.machine import free_memory; print(free_memory())"
    limited = f"ulimit -v 2000000; exec {sys.executable} -c '{script}'"
    free = int(subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=True).stdout)
    assert 0 < free < 2_000_000 * 1024


IMPORT_ALL = """
import importlib, os, pkgutil, sys
for name in sys.argv[1:]:
    delattr(os, name)
import fewshot
for found in pkgutil.walk_packages(fewshot.__path__, "fewshot."):
    if found.name.endswith(("fewshot.__main__", ".modeling_fewshot")):
        continue  # the command line itself, and what is copied into exports for transformers
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        assert (error.name or "fewshot").partition(".")[0] != "fewshot", error
        print(found.name, error.name)
"""
EXTRAS = {"fewshot.evaluate.models.lm_eval": "lm_eval", "fewshot.kernels.triton_code": "triton"}


def test_every_module_is_imported_where_the_system_lacks_what_linux_has() -> None:
    """As on macOS and Windows; only modules that are named here may need what is no dependency."""
    named = os.environ | {"USERNAME": "someone"}  # Windows always says who it is
    command = [sys.executable, "-c", IMPORT_ALL, "sched_getaffinity", "getuid", "sysconf"]
    done = subprocess.run(command, env=named, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        module, extra = line.split()
        assert EXTRAS.get(module) == extra


def test_what_does_not_fit_in_memory_is_told_with_both_sizes_and_the_way_out() -> None:
    machine.check_fits(1000, "a table", free_bytes=1000)
    with pytest.raises(BadValue, match=r"^a table needs 4 TB of memory, 1.5 GB are free: lower --n$"):
        machine.check_fits(4e12, "a table", "lower --n", free_bytes=1_500_000_000)
    with pytest.raises(BadValue, match=r"needs 4.0e\+33 bytes of memory, .* are free"):
        machine.check_fits(4e33, "a table")


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (2.5e12, "2.5 TB"), (7e15, "7 PB")]
)
def test_bytes_are_shown_in_the_largest_unit_below_them(n: float, text: str) -> None:
    assert machine.in_bytes(n) == text
