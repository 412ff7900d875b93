from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.kernels import triton
from fewshot.kernels.interface import Requirements
from fewshot.patterns.layout import mask
from fewshot.patterns.pattern import Banded, Columns, Dense, Fixed, Pattern, Strided

REQUIREMENTS = Requirements(
    pattern=Banded(4),
    device="cuda",
    dtype=torch.float32,
    n_queries=7,
    n_keys=9,
    documents=False,
    dropout=0.0,
    training=True,
)
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def run_cases(chosen: str = "", **environment: str) -> None:
    """The tests of triton_cases.py, or those that `chosen` (pytest's -m) leaves, in a process of their own."""
    cases = Path(__file__).with_name("triton_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--durations=8", "-m", chosen, str(cases)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@needs_triton
@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_in_tritons_interpreter_all_cases_pass(chosen: str) -> None:
    if version("triton") < "3.7" and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("the interpreter of Triton before 3.7 cannot loop with NumPy 2.4")
    run_cases(chosen, TRITON_INTERPRET="1", FEWSHOT_TEST_DEVICE="cpu")


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_all_cases_pass() -> None:
    run_cases(TRITON_INTERPRET="0", FEWSHOT_TEST_DEVICE="cuda")


def test_without_triton_or_cuda_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Requirements(**{**vars(REQUIREMENTS), "device": "cpu"})
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert triton.supports(cpu) == "it computes on CUDA, not on cpu"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert triton.supports(REQUIREMENTS) == "Triton is not installed"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton.supports(cpu) == "Triton is not installed"


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert triton.supports(REQUIREMENTS) == "it needs an NVIDIA GPU of compute capability 8.0 or more"


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize(
    "pattern",
    [Dense(), Banded(37), Strided(7), Fixed(24, 5), Columns(9, 2) | Strided(4), Banded(9) | Strided(20)],
    ids=str,
)
def test_tables_walk_over_every_pair_and_mark_as_whole_only_tiles_that_are(pattern: Pattern, by_key: bool) -> None:
    n_queries, n_keys = 16, 32
    for T, S, q_start in [(1, 1, 0), (1, 90, 89), (100, 100, 0), (70, 120, 40)]:
        seen = torch.zeros(T, S, dtype=torch.int64)
        plan = triton._plan(pattern.text, 2, T, S, q_start, torch.device("cpu"))
        for phase in plan.kinds[0]:
            tile, other = (n_keys, n_queries) if by_key else (n_queries, n_keys)
            table = (triton._key_tiles if by_key else triton._query_tiles)(phase, n_queries, n_keys)
            assert (table[:, 10] - table[:, 7]).diff().le(0).all()  # the heaviest first
            for row in table.tolist():
                flat, other_flat, count, walk = row[0], row[4], row[1], row[7:11]
                assert count <= tile
                assert (walk[1] - walk[0]) % other == (walk[2] - walk[1]) % other == 0
                keys_at, queries_at = (flat, other_flat) if by_key else (other_flat, flat)
                for i in range(count):
                    for j in range(walk[0], walk[3]):
                        query, key = (j, row[11] + i) if by_key else (i, j)
                        key_flat = keys_at + i if by_key else keys_at + j
                        low, high = (int(ends[queries_at + query]) for ends in (phase.low, phase.high))
                        if low <= key < high:
                            seen[int(phase.queries[queries_at + query]) - q_start, int(phase.keys[key_flat])] += 1
                        else:
                            assert not walk[1] <= j < walk[2]
        assert torch.equal(seen, torch.from_numpy(mask(pattern, T, S, q_start)).long())


@needs_triton
def test_its_kernels_compile_for_an_h100(tmp_path: Path) -> None:
    """The interpreter takes what the compiler does not; compiling needs no GPU."""
    command = [sys.executable, str(Path(__file__).with_name("triton_for_h100.py")), "128"]
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        name, shared_bytes, n_wgmma = line.split()
        assert int(shared_bytes) <= 227 * 1024, name
        assert int(n_wgmma) > 0, name  # the tensor cores' own instructions, not those of older cards
    assert len(done.stdout.splitlines()) == 3
