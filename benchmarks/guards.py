"""What the guard of training does: in clean runs, where it must do nothing, and where one process of four is broken.

    PYTHONPATH=src python benchmarks/guards.py --data ../shared/data/text --out benchmarks/results/guards.json

Clean runs: 2,000 steps each on real text. Broken ones are those of tests/train/parallel/test_faults.py: tiny models,
gloo, the third process's gradient, loss or moment, once, three times in a row, or for good.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fewshot.base.config import lay_over
from fewshot.bench.hardware import hardware
from fewshot.train.guard import FEWEST, WINDOW
from fewshot.train.run import start

SCRIPT = Path(__file__).parents[1] / "tests" / "train" / "parallel" / "one_is_broken.py"
N_STEPS, N_CTX = 2000, 64
CLEAN: dict[str, dict[str, Any]] = {
    "AdamW, characters": {"optimizer": {"name": "adamw", "lr": 3e-3}},
    "NorMuon, characters": {"optimizer": {"name": "normuon", "lr": 3e-3}},
    "Muon, batches of one row": {"optimizer": {"name": "muon", "lr": 1e-3}, "rows": 1},
    "AdamW, a high learning rate": {"optimizer": {"name": "adamw", "lr": 2e-2}},
    "two texts, one of ten rows from the second": {"optimizer": {"name": "adamw", "lr": 3e-3}, "second": 0.1},
}
BROKEN: dict[str, tuple[str, list[int], int]] = {  # what, in which calls, steps of the run
    "NaN in a gradient": ("gradient", [5], 8),
    "NaN in three gradients in a row": ("gradient", [5, 6, 7], 12),
    "NaN in a moment": ("moment", [5], 12),
    "loss times ten": ("loss", [70], 72),
    "NaN in every gradient from step 6 on": ("gradient", list(range(6, 200)), 12),
}


def settings(text: dict[str, Path], *, n_steps: int, rows: int, **sections: Any) -> dict[str, Any]:
    """Return a configuration of a model of 2 layers; a second text has the rest of the weight."""
    n_tokens = n_steps * rows * N_CTX
    base = {
        "data": {
            "sources": [{"name": name, "text": [str(path)], "weight": 1.0} for name, path in text.items()],
            "tokenizer": "bytes",
        },
        "model": {"n_layers": 2, "d_model": 32, "n_heads": 2, "n_ctx": N_CTX},
        "schedule": {
            "n_tokens": n_tokens,
            "batch_tokens": rows * N_CTX,
            "batch_start_tokens": rows * N_CTX,
            "ramp_tokens": 0,
            "warmup_tokens": n_tokens // 20,
            "decay_tokens": n_tokens,
        },
        "loop": {"compile": "never", "log_every": 1, "checkpoint_every": 500, "validate_every": n_steps},
    }
    return lay_over(base, sections)


def clean(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """Train without a fault; return how often the guard has stepped in, and how far losses scatter."""
    case = dict(CLEAN[name])
    rows, second = case.pop("rows", 8), case.pop("second", 0.0)
    given = settings({"plays": data / "tinyshakespeare.txt"}, n_steps=N_STEPS, rows=rows, **case)
    if second:
        given["data"]["sources"] = [
            {"name": "plays", "text": [str(data / "tinyshakespeare.txt")], "weight": 1 - second},
            {"name": "peps", "text": [str(data / "peps")], "weight": second},
        ]
    reports = list(start(given, folder / "run", say=lambda line: None))
    losses = [report.loss for report in reports if report.loss is not None]
    windows = [(losses[max(0, i - WINDOW) : i], losses[i]) for i in range(FEWEST, len(losses))]
    return {
        "run": name,
        "steps": reports[-1].step,
        "alarms": sum(report.event is not None for report in reports),
        "last loss": round(statistics.fmean(losses[-20:]), 4),
        "largest loss over mean": round(max(loss / statistics.fmean(window) for window, loss in windows), 3),
        "largest deviation in sigmas": round(
            max((loss - statistics.fmean(window)) / statistics.pstdev(window) for window, loss in windows), 2
        ),
    }


def broken(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """Train in four processes, the third of which is broken; return what each has decided."""
    what, calls, n_steps = BROKEN[name]
    given = settings({"plays": data / "tinyshakespeare.txt"}, n_steps=n_steps, rows=4, optimizer={"name": "adamw"})
    given = lay_over(given, {"loop": {"checkpoint_every": 4, "micro_rows": 1}, "parallel": {"fsdp": 4}})
    words = {"given": given, "out": str(folder), "rank": 2, "what": what, "calls": calls}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    subprocess.run(
        [sys.executable, *torchrun, str(SCRIPT), json.dumps(words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        capture_output=True,
        check=True,
    )
    outcomes = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(4)]
    seen, error = outcomes[0]
    return {
        "broken": name,
        "same on all processes": all(outcome == outcomes[0] for outcome in outcomes),
        "events": [[step, event] for step, _, event in seen if event],
        "last step": seen[-1][0],
        "error": error.replace(str(folder), "..."),
    }


def main() -> None:
    """Run all and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": hardware()}
    for part, run, names in (("clean", clean, CLEAN), ("broken", broken, BROKEN)):
        results[part] = []
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                results[part].append(run(name, args.data, Path(folder)))
            print(json.dumps(results[part][-1]), flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
