"""Runs on 1, 2 and 4 processes that several tests look at, and what is to be true of them.

Each number of processes is started once for all its runs: first one process trains, then four, then two go on with runs
of theirs, then one with runs of the two.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.base.config import lay_over
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.load import open_training
from fewshot.checkpoint.manifest import WEIGHTS, read_manifest
from fewshot.checkpoint.pieces import IN_PART
from fewshot.checkpoint.reader import PieceReader
from fewshot.model.gpt import GPT
from fewshot.train.run import read_run_config

SCRIPT = Path(__file__).with_name("several_processes.py")
TIMEOUT = 120  # seconds, of all runs on one number of processes
N_STEPS, SAVED_EVERY = 12, 4
MICRO_BATCHES = [2, 2, 2, 3, 3, 3]  # of the first steps, which have 4, 5, 6, 8, 8, 8 rows
BLOCKS, GROUPS = 3, 4  # of a model; what is outside the blocks is the fourth that FSDP gathers
Report = dict[str, Any]  # what one process saw of a run
Sections = dict[str, dict[str, Any]]


def config_of(text: Path, *, n_steps: int, saved_every: int, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return a run of about two epochs whose batches grow from 4 rows to 8, cut raggedly into micro-batches of 3."""
    n_tokens = 23 * 16 + (n_steps - 4) * 8 * 16  # the first four steps have 4, 5, 6 and 8 rows
    base = {
        "data": {"sources": [{"name": "text", "text": [str(text)]}], "tokenizer": "chars"},
        "model": {"n_layers": 3, "d_model": 16, "n_heads": 4, "n_ctx": 16, "dropout": 0.1},
        "schedule": {
            "n_tokens": n_tokens,
            "batch_tokens": 128,
            "batch_start_tokens": 64,
            "ramp_tokens": 256,
            "warmup_tokens": 128,
            "decay_tokens": n_tokens,
        },
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "loop": {"compile": "never", "kernel": "sdpa", "precision": "float32", "micro_rows": 3},
    }
    base["model"]["pattern"] = "alternate(dense, banded(5))"
    base["loop"] |= {"log_every": 1, "checkpoint_every": saved_every, "keep_checkpoints": 99, "validate_rows": 8}
    return lay_over(base, sections)


def write_text(path: Path, *, n_documents: int = 18) -> Path:
    """Write documents of about 40 characters; 18 make about 40 rows to train on."""
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "was", "happy"]
    lines = [" ".join(random.Random(i).choices(words, k=9)) for i in range(n_documents)]
    path.write_text("".join(f'{{"text": "{line}"}}\n' for line in lines))
    return path


# The kinds of runs that are trained in several layouts.
KINDS: dict[str, Sections] = {
    "tied": {"model": {"tied": True}},
    "untied": {"model": {"tied": False}, "optimizer": {"name": "normuon"}, "loop": {"document_masking": True}},
    "context": {"model": {"dropout": 0.0}},
    "context-untied": {
        "model": {"dropout": 0.0, "tied": False, "pattern": "alternate(strided(5), banded(9), dense)"},
        "optimizer": {"name": "normuon"},
        "loop": {"document_masking": True, "recompute": "selective"},
    },
    "exact": {"parallel": {"exact": True}, "loop": {"micro_rows": 2}},
    "exact-muon": {
        "model": {"tied": False},
        "optimizer": {"name": "normuon"},
        "parallel": {"exact": True},
        "loop": {"micro_rows": 2},
    },
}
# The kinds that are trained for 50 steps in every layout; where positions are shared, those without dropout.
WITHOUT_DROPOUT = "_no_dropout"
MATRIX: dict[str, Sections] = {
    f"{optimizer}_{'tied' if tied else 'untied'}{end}": {
        "model": {"tied": tied, "dropout": 0.0 if end else 0.1},
        "optimizer": {"name": optimizer},
    }
    for end in ("", WITHOUT_DROPOUT)
    for optimizer in ("adamw", "normuon")
    for tied in (True, False)
}
# Layouts that are resumed in each other, and a chain of five resumes.
SAVED = ("1", "fsdp4", "tp2fsdp2", "pp2")
CHAIN = ("fsdp4", "1", "tp2fsdp2", "pp2", "fsdp4", "1")
PAIRS = [f"{kind}-{start}>{end}" for kind in ("tied", "untied") for start in SAVED for end in SAVED if start != end]
CHAINS = [f"{kind}-{'>'.join(CHAIN[:n])}" for kind in ("tied", "untied") for n in range(2, len(CHAIN) + 1)]
Layout = tuple[int, Mapping[str, int]]  # number of processes, sizes
LAYOUTS: dict[str, Layout] = {
    "1": (1, {}),
    "fsdp2": (2, {"fsdp": 2}),
    "dp2": (2, {"dp": 2}),
    "tp2": (2, {"tp": 2}),
    "pp2": (2, {"pp": 2}),
    "fsdp4": (4, {"fsdp": 4}),
    "dp2fsdp2": (4, {"dp": 2, "fsdp": 2}),
    "tp2fsdp2": (4, {"tp": 2, "fsdp": 2}),
    "pp2fsdp2": (4, {"pp": 2, "fsdp": 2}),
    "pp2tp2": (4, {"pp": 2, "tp": 2}),
    "cp2": (2, {"cp": 2}),
    "cp4": (4, {"cp": 4}),
    "cp2fsdp2": (4, {"cp": 2, "fsdp": 2}),
    "cp2tp2": (4, {"cp": 2, "tp": 2}),
}
MATRIX_RUNS = [
    f"{kind}-{layout}"
    for layout in LAYOUTS
    for kind in MATRIX
    if layout == "1" or kind.endswith(WITHOUT_DROPOUT) == ("cp" in layout)
]
OTHERWISE: dict[str, Sections] = {  # what some runs do in a way of their own, which must not matter
    "untied-fsdp4": {"loop": {"recompute": "full"}},
    "untied-tp2": {"loop": {"recompute": "selective"}},
    "tied-pp2": {"loop": {"micro_rows": 8}},  # fewer micro-batches than stages
}


@dataclass
class Runs:
    """Trained runs by name, `kind-layout`; `kind-layout>layout` went on from the first checkpoint, and so on."""

    folder: Path
    reports: dict[str, list[Report]] = field(default_factory=dict)  # by run, by process
    saved_every: int = SAVED_EVERY  # steps

    def path(self, name: str) -> Path:
        """Return the run's folder."""
        return self.folder / name.replace(">", "_to_")

    def train(self, names: list[str], *, n_steps: int = N_STEPS, timeout: float = TIMEOUT) -> None:
        """Train runs that are all of one number of processes."""
        cases = [self._case(name, n_steps) for name in names]
        n, _ = LAYOUTS[names[0].replace(">", "-").split("-")[-1]]
        of_processes = train_here(cases) if n == 1 else train_apart(cases, n, self.folder, timeout=timeout)
        self.reports |= {name: [of_process[i] for of_process in of_processes] for i, name in enumerate(names)}

    def _case(self, name: str, n_steps: int) -> dict[str, Any]:
        start, _, layout = name.rpartition(">" if ">" in name else "-")
        parallel = {"dp": 1, "fsdp": 1, "tp": 1, "pp": 1, "cp": 1, **LAYOUTS[layout][1]}
        case: dict[str, Any] = {"run": str(self.path(name)), "count": layout in ("fsdp2", "tp2", "pp2", "dp2", "cp2")}
        if ">" not in name:
            how = {**KINDS, **MATRIX}[start]
            given = config_of(self.folder / "text.jsonl", n_steps=n_steps, saved_every=self.saved_every, **how)
            return {**case, "given": lay_over(given, {**OTHERWISE.get(name, {}), "parallel": parallel})}
        go_back(self.path(start), self.path(name), n_checkpoints=name.count(">"))
        return {**case, "overrides": {"parallel": parallel}}


def go_back(run: Path, copy: Path, *, n_checkpoints: int) -> None:
    """Copy a run as it was when it had so many checkpoints."""
    shutil.copytree(run, copy)
    for later in RunFolder(copy).checkpoint_folders()[n_checkpoints:]:
        shutil.rmtree(later)


def train_here(cases: list[dict[str, Any]]) -> list[list[Report]]:
    """Train cases in this process, with one thread."""
    spec = importlib.util.spec_from_file_location("train_several_processes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [[module.train_case(case) for case in cases]]
    finally:
        torch.set_num_threads(n_threads)


def train_apart(cases: list[dict[str, Any]], n: int, folder: Path, *, timeout: float = TIMEOUT) -> list[list[Report]]:
    """Train cases on n processes, and return their reports."""
    out = folder / f"reports-{n}"
    out.mkdir(exist_ok=True)
    (out / "cases.json").write_text(json.dumps(cases))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]
    command = [*torchrun, str(SCRIPT), str(out / "cases.json"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-8000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(n)]


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a file, so that of several processes that run tests only one trains."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# In the order in which they are trained; each line on one number of processes.
TRAINED = [
    ["tied-1", "untied-1", "context-1", "context-untied-1", "exact-1", "exact-muon-1"],
    [
        *("tied-fsdp4", "tied-dp2fsdp2", "tied-tp2fsdp2", "tied-pp2fsdp2", "untied-fsdp4", "untied-pp2tp2"),
        *("context-cp4", "context-cp2tp2", "context-untied-cp2fsdp2"),
        *("exact-fsdp4", "exact-muon-fsdp4", "exact-muon-dp2fsdp2", "untied-1>fsdp4", "untied-1>tp2fsdp2"),
    ],
    ["tied-fsdp4>1", "untied-pp2tp2>1", "exact-fsdp4>1", "exact-muon-fsdp4>1"],
    [
        *("tied-fsdp2", "tied-tp2", "tied-pp2", "untied-dp2", "untied-tp2", "untied-pp2"),
        *("context-cp2", "context-untied-cp2", "context-cp4>cp2"),
        *("exact-fsdp2", "exact-muon-fsdp2", "exact-fsdp4>1>fsdp2", "exact-muon-fsdp4>1>fsdp2"),
        *("tied-tp2fsdp2>pp2", "untied-fsdp4>pp2", "untied-1>tp2fsdp2>pp2"),
    ],
    ["tied-pp2>1"],
]


def trained(folder: Path, train: Callable[[Runs], Any], *, saved_every: int = SAVED_EVERY) -> Runs:
    """Return what `train` has done in a folder, by this process or another; if it failed, it is not tried again."""
    runs, result = Runs(folder, saved_every=saved_every), folder / "reports.json"
    with alone(folder / "lock"):
        if not result.exists():
            write_text(folder / "text.jsonl")
            failure = "the training of all runs broke off"
            try:
                train(runs)
                failure = ""
            finally:
                result.write_text(json.dumps([failure, runs.reports]))
    failure, runs.reports = json.loads(result.read_text())
    assert not failure, failure
    return runs


def layout_of_run(name: str) -> Mapping[str, int]:
    """Return the sizes of the layout in which a run ended."""
    return LAYOUTS[name.replace(">", "-").rpartition("-")[2]][1]


def differences(runs: Runs, name: str) -> dict[str, float]:
    """Return the largest differences from the run of the same kind on one process, over the steps that it trained."""
    alone, run = runs.reports[f"{name.rpartition('-')[0]}-1"][0], runs.reports[name][0]
    first = len(alone["losses"]) - len(run["losses"])
    losses, norms = (list(zip(alone[what][first:], run[what], strict=True)) for what in ("losses", "norms"))
    return {
        "loss": max(abs(a - b) for a, b in losses),
        "norm": max(abs(a - b) / a for a, b in norms),
        "val_loss": abs(alone["val_loss"] - run["val_loss"]),
    }


def check_agrees(runs: Runs, name: str) -> None:
    """Assert that a run went as on one process, and that all of its processes say so and hold equal copies."""
    largest = differences(runs, name)
    assert largest["loss"] <= 1e-5, largest
    assert largest["norm"] <= 1e-5, largest
    assert largest["val_loss"] <= 1e-6, largest
    reports = runs.reports[name]
    for what in ("losses", "norms", "val_loss"):
        assert all(report[what] == reports[0][what] for report in reports), what
    for what in ("final", "final_state"):
        assert not different_copies(reports, what)


def different_copies(reports: list[Report], what: str) -> list[str]:
    """Return the pieces of which processes that hold the same one have different values."""
    values: dict[str, set[str]] = {}
    for report in reports:
        for key, sha in report[what].items():
            values.setdefault(key, set()).add(sha)
    return [key for key, shas in values.items() if len(shas) > 1]


def rows_of(runs: Runs, name: str) -> dict[int, str]:
    """Return the hash of every row that the processes of a run trained on together, by its number in the run."""
    return {int(number): sha for report in runs.reports[name] for number, sha in report["rows"].items()}


def initial_weights(run: Path) -> dict[str, Tensor]:
    """Return the weights that a run begins with, by name, as one process makes them."""
    config = read_run_config(run)
    return {name: weight.detach() for name, weight in GPT(config.model, seed=config.loop.seed).named_parameters()}


def saved_tensors(run: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the whole weights and moments of a checkpoint, by name."""
    checkpoint = read_manifest(RunFolder(run).checkpoint(step))
    return PieceReader(checkpoint, WEIGHTS).tensors(), open_training(checkpoint).tensors()


def sha_of_run(run: Path, step: int) -> str:
    """Return the hash of all weights and moments of a checkpoint."""
    return sha("".join(sha(whole[name]) for whole in saved_tensors(run, step) for name in sorted(whole)))


def sha(values: Tensor | str) -> str:
    """Return the hash of a tensor's values, or of a text."""
    content = values.encode() if isinstance(values, str) else values.detach().contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def check_pieces(reports: list[Report], what: str, whole: Mapping[str, Tensor]) -> None:
    """Assert that every piece that a process held has the values of the whole tensor there, and none is missing."""
    n_held = dict.fromkeys(whole, 0)
    held = {key: sha for report in reports for key, sha in report[what].items()}
    assert not different_copies(reports, what)
    for key, expected in held.items():
        match = IN_PART.fullmatch(key)
        name = match["name"] if match else key
        bounds = [bound.split(":") for bound in match["ranges"].split(",")] if match else []
        piece = whole[name][tuple(slice(int(start), int(end)) for start, end in bounds)]
        assert sha(piece) == expected, key
        n_held[name] += piece.numel()
    assert n_held == {name: tensor.numel() for name, tensor in whole.items()}
