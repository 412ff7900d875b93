"""A ladder on real text, what it predicted, and whether two more seeds of its largest run fall into the interval.

    PYTHONPATH=src python benchmarks/ladder.py --text ../shared/data/text/books --work /tmp/ladder \
        --out benchmarks/results/ladder.json

The ladder is `fewshot train --ladder` with preset tiny-1m and 13 million tokens, in --work/ladder; it is resumed if it
is there already. The other seeds are trained beside each other, with one thread each.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fewshot.base.config import lay_over
from fewshot.bench.hardware import hardware
from fewshot.checkpoint.folder import RunFolder
from fewshot.cli.main import main as fewshot
from fewshot.train.ladder.prediction import compare, read_prediction
from fewshot.train.ladder.series import is_ladder, measure, open_ladder
from fewshot.train.run import resume, start

SEEDS = (1, 2)
WORDS = ["--preset", "tiny-1m", "--n_tokens", "13000000", "--ladder"]


def train_seed(seed: int, *, largest: Path, work: Path) -> float:
    """Train the largest run again, begun with another seed, and return its loss."""
    torch.set_num_threads(1)
    run = RunFolder(work / f"seed-{seed}")
    if run.config.is_file():
        reports = resume(run.path, say=lambda line: None)
    else:
        given = lay_over(RunFolder(largest).read_config(), {"loop": {"seed": seed}})
        reports = start(given, run.path, say=lambda line: None)
    for _ in reports:
        pass
    return measure(run.path).losses[-1]


def main() -> None:
    """Train what is not there, and write what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    folder, began = args.work / "ladder", time.perf_counter()
    if is_ladder(folder):
        code, wall = fewshot(["resume", str(folder)]), None
    else:
        code = fewshot(["train", "--text", str(args.text), *WORDS, "--out", str(folder)])
        wall = time.perf_counter() - began
    if code:
        raise SystemExit(code)
    ladder = open_ladder(folder)
    runs, prediction = [measure(run) for run in ladder.runs], read_prediction(ladder)
    with ProcessPoolExecutor(len(SEEDS), mp_context=multiprocessing.get_context("spawn")) as pool:
        train = functools.partial(train_seed, largest=ladder.runs[-1], work=args.work)
        losses = dict(zip(map(str, SEEDS), pool.map(train, SEEDS), strict=True))
    low, high = prediction.loss.low, prediction.loss.high
    measured: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": hardware(),
        "words": WORDS,
        "wall_seconds": wall,  # null: the ladder was there already
        "training_seconds": sum(run.seconds for run in runs),
        "predicted": asdict(prediction.loss),
        "law_of_size": asdict(prediction.of_size),
        "law_of_compute": asdict(prediction.of_compute),
        "outcome": asdict(compare(prediction, runs[-1])),
        "other_seeds": {seed: {"loss": loss, "is_inside": low <= loss <= high} for seed, loss in losses.items()},
        "runs": [asdict(run) for run in runs],
    }
    args.out.write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps({key: measured[key] for key in ("predicted", "outcome", "other_seeds")}, indent=1))


if __name__ == "__main__":
    main()
