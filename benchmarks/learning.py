"""How many steps NorMuon needs for the loss of AdamW at its best learning rate, and nanochat's MuonAdamW beside it.

    PYTHONPATH=src python benchmarks/learning.py --text ../shared/data/text/books --nanochat FOLDER \
        --work /tmp/learning --out benchmarks/results/learning.json

One model (4 layers x 256), one text, one order of rows, one schedule of its length; float32, two runs beside each
other, one thread each. Times are the medians of steps of short runs that alternate at the end, with nothing beside
them. AdamW tries four learning rates on the first seed; the best goes on with the others. NorMuon has 70% of the
steps, and all of them. nanochat's class takes the blocks' matrices at two learning rates, of which the better goes on;
embeddings and vectors have AdamW as ours. Runs that are in --work already are not made again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fewshot.bench.hardware import hardware
from fewshot.checkpoint.folder import RunFolder
from fewshot.model.config import GPTConfig
from fewshot.train.config import OptimizerConfig
from fewshot.train.optim import OPTIMIZERS, Parts, _adamw, _is_hidden_matrix
from fewshot.train.parallel.mesh import Layout
from fewshot.train.records.metrics import read_metrics
from fewshot.train.run import start

SEEDS, LEARNING_RATES, NANOCHAT_RATES = (0, 1, 2), (3.75e-4, 7.5e-4, 1.5e-3, 3e-3), (0.005, 0.02)
BATCH_TOKENS, N_CTX = 4096, 256
ROUNDS, TIMED_STEPS = 3, 8  # of short runs; the first step of each is not counted


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run."""

    optimizer: str
    lr: float  # of AdamW; for nanochat that of its matrices
    seed: int
    n_steps: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.optimizer}-{self.lr:g}-{self.n_steps}-{self.seed}"


def settings(case: Case, text: Path) -> dict[str, Any]:
    """Return the configuration of a run."""
    n_tokens = case.n_steps * BATCH_TOKENS
    optimizer = {"name": case.optimizer, "lr": case.lr}
    if case.optimizer == "nanochat":
        optimizer = {"name": "nanochat", "lr": 2.5e-3, "matrix_lr": case.lr}
    return {
        "text": [str(text)],
        "data": {"n_vocab": 4096},
        "model": {
            "n_layers": 4,
            "d_model": 256,
            "n_heads": 4,
            "n_ctx": N_CTX,
            "pattern": "alternate(dense, banded(64))",
        },
        "schedule": {
            "n_tokens": n_tokens,
            "batch_tokens": BATCH_TOKENS,
            "batch_start_tokens": BATCH_TOKENS,
            "ramp_tokens": 0,
            "warmup_tokens": n_tokens // 20,
            "decay_tokens": n_tokens,
            "final_fraction": 0.0,
            "decay": "linear",
        },
        "optimizer": optimizer,
        "loop": {
            "seed": case.seed,
            "precision": "float32",
            "compile": "never",
            "validate_every": case.n_steps // 2,
            "validate_rows": 512,
            "log_every": 1,
        },
    }


class Nanochat:
    """nanochat's MuonAdamW on the blocks' matrices, as one of the optimizers of a run; its state is not saved."""

    def __init__(self, matrices: Sequence[torch.Tensor], config: OptimizerConfig) -> None:
        from nanochat.optim import MuonAdamW

        by_shape: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for matrix in matrices:
            by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
        group = {
            "kind": "muon",
            "lr": config.matrix_lr,
            "momentum": 0.95,
            "ns_steps": 5,
            "beta2": 0.9,
            "weight_decay": config.weight_decay,
        }
        self._optimizer = MuonAdamW([{**group, "params": members} for members in by_shape.values()])
        self.param_groups, self.state = self._optimizer.param_groups, dict[torch.Tensor, Any]()

    def step(self) -> None:
        """Update the matrices."""
        self._optimizer.step()


def with_nanochat(
    parts: Parts, config: OptimizerConfig, model: GPTConfig, layout: Layout, dtype: torch.dtype
) -> list[Any]:
    """Return nanochat's optimizer on the blocks' matrices and ours on the rest."""
    matrices = [part.local for part in parts if _is_hidden_matrix(part)]
    rest = [part for part in parts if not _is_hidden_matrix(part)]
    return [Nanochat(matrices, config), *_adamw(rest, config, layout)]


def train(case: Case, *, text: Path, work: Path, nanochat: Path) -> dict[str, Any]:
    """Train a run, unless it is there, and return its figures."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(nanochat))
    OPTIMIZERS["nanochat"] = with_nanochat
    run = RunFolder(work / case.name)
    rows = read_metrics(run.metrics)
    if not rows or rows[-1]["step"] < case.n_steps or rows[-1]["val_loss"] is None:
        shutil.rmtree(run.path, ignore_errors=True)
        for _ in start(settings(case, text), run.path, say=lambda line: None):
            pass
        rows = read_metrics(run.metrics)
    print(f"{case.name}: {rows[-1]['val_loss']:.4f} nats/token after {rows[-1]['seconds']:.0f} s", file=sys.stderr)
    curve = {str(row["step"]): row["val_loss"] for row in rows if row["val_loss"] is not None}
    return {**asdict(case), "loss": rows[-1]["val_loss"], "curve": curve}


def step_seconds(cases: Sequence[Case], *, text: Path) -> list[float]:
    """Return the median step of each case; all in turn, round after round, with one thread."""
    torch.set_num_threads(1)
    taken: list[list[float]] = [[] for _ in cases]
    for _ in range(ROUNDS):
        for case, seconds in zip(cases, taken, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                plain = settings(case, text)
                plain["loop"]["validate_every"] = TIMED_STEPS
                for _ in start(plain, Path(folder) / "run", say=lambda line: None):
                    pass
                ends = [row["seconds"] for row in read_metrics(RunFolder(Path(folder) / "run").metrics)]
            seconds += [end - begin for begin, end in itertools.pairwise(ends[:-1])]  # the last one validates
    return [statistics.median(seconds) for seconds in taken]


def mean(runs: Iterable[dict[str, Any]], name: str) -> float:
    """Return the mean of a figure."""
    return statistics.fmean(run[name] for run in runs)


def main() -> None:
    """Train every run and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--nanochat", type=Path, required=True, help="a checkout of nanochat")
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--n_steps", type=int, default=400)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    fewer = round(0.7 * args.n_steps)
    trained: list[dict[str, Any]] = []
    one = functools.partial(train, text=args.text, work=args.work, nanochat=args.nanochat.resolve())
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:

        def begin(optimizer: str, lrs: Iterable[float], seeds: Iterable[int], n_steps: int) -> list[Future[Any]]:
            wanted = [Case(optimizer=optimizer, lr=lr, seed=seed, n_steps=n_steps) for lr in lrs for seed in seeds]
            return [pool.submit(one, case) for case in wanted]

        def ended(runs: Iterable[Future[Any]]) -> list[dict[str, Any]]:
            results = [run.result() for run in runs]
            trained.extend(results)
            return results

        def tuned(optimizer: str, tried: Iterable[Future[Any]]) -> list[dict[str, Any]]:
            best = min(ended(tried), key=lambda run: run["loss"])
            return [best, *ended(begin(optimizer, [best["lr"]], SEEDS[1:], args.n_steps))]

        tried = {
            "adamw": begin("adamw", LEARNING_RATES, SEEDS[:1], args.n_steps),
            "nanochat": begin("nanochat", NANOCHAT_RATES, SEEDS[:1], args.n_steps),
        }
        runs = [begin("normuon", [2.5e-3], SEEDS, n_steps) for n_steps in (fewer, args.n_steps)]
        adamw, nanochat = (tuned(name, tried[name]) for name in tried)
        short, whole = (ended(some) for some in runs)
    timed = [Case(optimizer=name, lr=2.5e-3, seed=0, n_steps=TIMED_STEPS) for name in ("adamw", "normuon")]
    adamw_step, normuon_step = step_seconds(timed, text=args.text)
    summary = {
        "adamw_lr": adamw[0]["lr"],
        "adamw_loss": mean(adamw, "loss"),
        "normuon_loss_in_fewer_steps": mean(short, "loss"),
        "steps_ratio": fewer / args.n_steps,
        "adamw_step_seconds": adamw_step,
        "normuon_step_seconds": normuon_step,
        "time_ratio": fewer / args.n_steps * normuon_step / adamw_step,
        "normuon_loss": mean(whole, "loss"),
        "nanochat_matrix_lr": nanochat[0]["lr"],
        "nanochat_loss": mean(nanochat, "loss"),
        "normuon_to_nanochat": mean(whole, "loss") / mean(nanochat, "loss"),
    }
    measured = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": hardware(),
        "summary": summary,
        "runs": trained,
    }
    args.out.write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
