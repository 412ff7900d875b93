"""Training in every layout against one process: tiny models, gloo, one thread a process, at most four processes.

    PYTHONPATH=src python benchmarks/layouts.py --out benchmarks/results/layouts.json

Four parts: 50 steps in every layout, with what is exchanged; a resume of every layout in every other and a chain of
five; 100 steps of exact sums on 1, 2 and 4 processes and from 4 to 1 to 2; the time of a step with exact sums over that
of an ordinary one. Uses the runs of tests/train/parallel, whose tests hold the same claims on shorter runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "train" / "parallel"))
import layout_runs as lr

from fewshot.base.config import lay_over
from fewshot.bench.hardware import hardware

TIMEOUT = 600  # seconds, for one start of several processes
PARTS = ["layouts", "resumed", "exact", "step_times"]
EXACT_SAVED = 33  # one chain goes on from the first checkpoint, then from the second
EXACT = {"adamw": "exact", "normuon": "exact-muon"}
EXACT_LAYOUTS = ("1", "fsdp2", "dp2", "fsdp4", "dp2fsdp2", "fsdp4>1", "fsdp4>1>fsdp2")
TIMED = {"n_layers": 4, "d_model": 256, "n_heads": 4, "n_ctx": 128, "pattern": "alternate(dense, banded(64))"}
TIMED_ROWS, TIMED_STEPS = 16, 4  # of a step; of a turn, of which the first is not counted
Row = dict[str, Any]


def is_true(check: Callable[..., None], *arguments: Any) -> bool:
    """Return whether a check of the tests holds."""
    try:
        check(*arguments)
    except AssertionError:
        return False
    return True


def agrees_in_copies(reports: list[lr.Report]) -> bool:
    """Return whether processes that hold the same piece at the end have the same bits, of weights and of moments."""
    return not any(lr.different_copies(reports, what) for what in ("final", "final_state"))


def tells_the_same(reports: list[lr.Report]) -> bool:
    """Return whether all processes give the same losses, norms and validation loss."""
    return all(report[what] == reports[0][what] for report in reports for what in ("losses", "norms", "val_loss"))


def exchanges_of_last_step(reports: list[lr.Report]) -> Mapping[str, Mapping[str, int]] | None:
    """Return what a process exchanges in a step after which nothing is saved, by phase; only where it was counted."""
    steps = reports[0].get("exchanges")
    return None if steps is None else steps[-2]


def in_layouts(folder: Path, n_steps: int) -> list[Row]:
    """Train every kind in every layout, and compare with one process."""
    runs = started(folder, saved_every=n_steps)
    for layout in lr.LAYOUTS:
        names = [name for name in lr.MATRIX_RUNS if name.endswith(f"-{layout}")]
        runs.train(names, n_steps=n_steps, timeout=TIMEOUT)
        print(f"trained in {layout}", flush=True)
    rows = []
    for name in (name for name in lr.MATRIX_RUNS if not name.endswith("-1")):
        kind, reports = name.rpartition("-")[0], runs.reports[name]
        rows.append(
            {
                "run": name,
                "steps": len(reports[0]["losses"]),
                "initial_weights_equal": is_true(
                    lr.check_pieces, reports, "initial", lr.initial_weights(runs.path(name))
                ),
                "largest_difference": lr.differences(runs, name),
                "copies_equal_at_the_end": agrees_in_copies(reports),
                "processes_tell_the_same": tells_the_same(reports),
                "rows_equal": lr.rows_of(runs, name) == lr.rows_of(runs, f"{kind}-1"),
                "exchanges_in_a_step": exchanges_of_last_step(reports),
            }
        )
    return rows


def resumed(folder: Path, n_steps: int) -> list[Row]:
    """Resume runs in each other layout and in a chain, and compare with a run that was not stopped."""
    runs = started(folder)
    for layout in lr.SAVED:
        runs.train([f"{kind}-{layout}" for kind in ("tied", "untied")], n_steps=n_steps, timeout=TIMEOUT)
    for layout in lr.SAVED:
        runs.train([name for name in lr.PAIRS if name.endswith(f">{layout}")], timeout=TIMEOUT)
    for n in range(2, len(lr.CHAIN)):
        runs.train([name for name in lr.CHAINS if name.count(">") == n], timeout=TIMEOUT)
    print("resumed in every layout", flush=True)
    rows = []
    for name in dict.fromkeys([*lr.PAIRS, *lr.CHAINS]):
        step, reports = name.count(">") * runs.saved_every, runs.reports[name]
        weights, moments = lr.saved_tensors(runs.path(name), step)
        alone = lr.rows_of(runs, f"{name.rpartition('-')[0]}-1")
        n_rows = len(lr.rows_of(runs, name))
        rows.append(
            {
                "run": name,
                "resumes": name.count(">"),
                "from_step": step,
                "steps": n_steps,
                "epochs": len(alone) / len(set(alone.values())),
                "weights_equal": is_true(lr.check_pieces, reports, "initial", weights),
                "moments_equal": is_true(lr.check_pieces, reports, "initial_state", moments),
                "rows_equal": lr.rows_of(runs, name) == dict(sorted(alone.items())[-n_rows:]),
                "largest_difference": lr.differences(runs, name),
            }
        )
    return rows


def exact(folder: Path, n_steps: int) -> list[Row]:
    """Train with exact sums on several numbers of processes, and compare the hashes of weights and moments."""
    runs = started(folder, saved_every=EXACT_SAVED)
    for layout in EXACT_LAYOUTS:
        runs.train([f"{kind}-{layout}" for kind in EXACT.values()], n_steps=n_steps, timeout=TIMEOUT)
    print("trained with exact sums", flush=True)
    rows = []
    for optimizer, kind in EXACT.items():
        shas = {layout: lr.sha_of_run(runs.path(f"{kind}-{layout}"), n_steps) for layout in EXACT_LAYOUTS}
        alone = runs.reports[f"{kind}-1"][0]
        for layout, sha in shas.items():
            losses, norms = (runs.reports[f"{kind}-{layout}"][0][what] for what in ("losses", "norms"))
            same = losses == alone["losses"][-len(losses) :] and norms == alone["norms"][-len(norms) :]
            row = {"optimizer": optimizer, "layout": layout, "steps": n_steps, "sha256": sha}
            rows.append({**row, "bits_equal": sha == shas["1"], "losses_and_norms_equal": same})
    return rows


def step_times(folder: Path, rounds: int) -> list[Row]:
    """Time steps with exact sums and ordinary ones in turns on four processes, for several micro-batches a process."""
    folder.mkdir()
    lr.write_text(folder / "text.jsonl", n_documents=400)
    n_tokens = TIMED_STEPS * TIMED_ROWS * TIMED["n_ctx"]
    clock = {
        "n_tokens": n_tokens,
        "batch_tokens": n_tokens // TIMED_STEPS,
        "batch_start_tokens": n_tokens // TIMED_STEPS,
    }
    given = lay_over(
        lr.config_of(folder / "text.jsonl", n_steps=TIMED_STEPS, saved_every=99),
        {
            "model": {**TIMED, "dropout": 0.0},
            "schedule": {**clock, "ramp_tokens": 0, "decay_tokens": n_tokens},
            "loop": {"validate_rows": 1},
        },
    )
    rows = []
    for optimizer in EXACT:
        turns = [
            (n_micro, is_exact, turn) for turn in range(rounds) for n_micro in (1, 4) for is_exact in (False, True)
        ]
        cases = []
        for n_micro, is_exact, turn in turns:
            how = {
                "optimizer": {"name": optimizer},
                "loop": {"micro_rows": TIMED_ROWS // 4 // n_micro},
                "parallel": {"fsdp": 4, "exact": is_exact},
            }
            run = folder / f"{optimizer}-{n_micro}-{is_exact}-{turn}"
            cases.append({"run": str(run), "given": lay_over(given, how)})
        reports = lr.train_apart(cases, 4, folder, timeout=TIMEOUT)[0]
        seconds: dict[tuple[int, bool], list[float]] = {}
        for (n_micro, is_exact, _), report in zip(turns, reports, strict=True):
            ends = report["seconds"]
            seconds.setdefault((n_micro, is_exact), []).extend(b - a for a, b in itertools.pairwise(ends))
        for n_micro in (1, 4):
            ordinary, ordered = (statistics.median(seconds[n_micro, is_exact]) for is_exact in (False, True))
            row = {"optimizer": optimizer, "layout": "fsdp4", "micro_batches_a_process": n_micro, "rounds": rounds}
            rows.append({**row, "ordinary_seconds": ordinary, "exact_seconds": ordered, "ratio": ordered / ordinary})
    return rows


def started(folder: Path, *, saved_every: int = lr.SAVED_EVERY) -> lr.Runs:
    """Return a folder for runs, with their text."""
    folder.mkdir()
    lr.write_text(folder / "text.jsonl")
    return lr.Runs(folder, saved_every=saved_every)


def show(result: Mapping[str, Any]) -> None:
    """Print a line for each row, and how many rows hold each claim."""
    for part in PARTS:
        rows = result.get(part, [])
        print(f"\n{part}")
        for row in rows:
            print("  " + "  ".join(f"{key} {in_short(value)}" for key, value in row.items()))
        held = Counter(key for row in rows for key, value in row.items() if value is True)
        for key in dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, bool)):
            print(f"  {key}: {held[key]} of {len(rows)}")
        if rows and "largest_difference" in rows[0]:
            for what in ("loss", "norm", "val_loss"):
                print(f"  largest difference in {what}: {max(row['largest_difference'][what] for row in rows):.1e}")


def in_short(value: Any) -> str:
    """Return a value in few characters."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{in_short(part)}" for key, part in value.items())
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def main() -> None:
    """Measure all parts and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--steps", type=int, default=50, help="of the runs in every layout")
    parser.add_argument("--resumed-steps", type=int, default=24)
    parser.add_argument("--exact-steps", type=int, default=100)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="others stay as the file has them")
    parser.add_argument("--rounds", type=int, default=3, help="turns in which steps are timed")
    given = parser.parse_args()
    result: dict[str, Any] = {
        "bench": "layouts",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**hardware(), "threads": 1},
        "model": {"n_layers": 3, "d_model": 16, "n_heads": 4, "n_ctx": 16, "dropout": 0.1},
        "timed_model": {**TIMED, "rows": TIMED_ROWS},
    }
    if set(given.parts) != set(PARTS) and given.out.exists():
        result = {**json.loads(given.out.read_text()), **result}
    with tempfile.TemporaryDirectory() as folder:
        measures: dict[str, Callable[[Path], list[Row]]] = {
            "layouts": lambda path: in_layouts(path, given.steps),
            "resumed": lambda path: resumed(path, given.resumed_steps),
            "exact": lambda path: exact(path, given.exact_steps),
            "step_times": lambda path: step_times(path, given.rounds),
        }
        for part in given.parts:
            began = time.perf_counter()
            result[part] = measures[part](Path(folder) / part)
            result.setdefault("seconds", {})[part] = round(time.perf_counter() - began)
            given.out.write_text(json.dumps(result, indent=1) + "\n")  # kept if a later part is cut off
    show(result)


if __name__ == "__main__":
    main()
