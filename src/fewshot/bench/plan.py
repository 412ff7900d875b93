"""Compare the plan of a run's memory with what training takes, by kind, for several shapes and layouts."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from fewshot.base.errors import BadValue, check, look_up
from fewshot.base.machine import in_bytes
from fewshot.base.rng import seed_of
from fewshot.bench.memory import MEMORY_MARK, QUIET
from fewshot.kernels.cross_entropy import is_native
from fewshot.model.config import GPTConfig
from fewshot.model.footprint.activations import RECOMPUTE
from fewshot.model.footprint.layout import SIZES, Layout
from fewshot.model.footprint.memory import Footprint, Work, stage_footprints

# Small, and large enough that what Python and its libraries take beside the run does not count.
SHAPES: dict[str, tuple[GPTConfig, Work]] = {
    "even": (GPTConfig(n_layers=4, d_model=384, n_heads=6, n_ctx=512, n_vocab=8192), Work(micro_rows=2)),
    "deep": (
        GPTConfig(
            n_layers=12, d_model=256, n_heads=4, n_ctx=512, n_vocab=4096, pattern="alternate(dense, banded(128))"
        ),
        Work(micro_rows=2),
    ),
    "wide": (
        GPTConfig(n_layers=2, d_model=768, n_heads=8, n_ctx=512, n_vocab=2048, tied=False),
        Work(micro_rows=2, precision="float32"),
    ),
    "many words": (
        GPTConfig(n_layers=6, d_model=320, n_heads=10, n_ctx=1024, n_vocab=16_384),
        Work(micro_rows=1, precision="float32"),
    ),
}
LAYOUTS = {
    "alone": Layout(),
    "fsdp2": Layout(fsdp=2),
    "tp2": Layout(tp=2),
    "pp2": Layout(pp=2),
    "dp2": Layout(dp=2),
    "cp2": Layout(cp=2),
    "tp2-fsdp2": Layout(tp=2, fsdp=2),
    "pp2-fsdp2": Layout(pp=2, fsdp=2),
}
USUAL = ("alone", "fsdp2", "tp2", "pp2")  # those that are compared if none is named
TIMEOUT = 600  # seconds of one run
ALLOWED = {"peak": 0.10, "kind": 0.15}  # how far a plan may be off


def measure(
    shapes: Iterable[str], layouts: Iterable[str], recompute: Iterable[str], *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return measured and planned bytes of every combination; each is a run of its own, one after the other."""
    check(MEMORY_MARK.exists(), f"memory is measured by {MEMORY_MARK}, which is on Linux alone")
    rows = []
    cells = list(itertools.product(shapes, layouts, recompute))
    for shape, layout, again in cells:  # before anything is measured
        look_up("shape", shape, SHAPES), look_up("layout", layout, LAYOUTS)
        look_up("recompute", again, dict.fromkeys(RECOMPUTE))
    for shape, layout, again in cells:
        row = compare(shape, layout, again)
        rows.append(row)
        said = ", ".join(f"{kind} {ratio:.3f}" for kind, ratio in row["ratios"].items())
        say(f"{shape}, {layout}, recompute {again}: planned / measured: {said}")
    return summary(rows)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows with how far the worst of them is off, and which ratios are outside of what is `ALLOWED`."""
    ratios = [(kind, ratio) for row in rows for kind, ratio in row["ratios"].items()]
    return {
        "rows": rows,
        "peak_off_by_at_most": max(abs(ratio - 1) for kind, ratio in ratios if kind == "peak"),
        "kind_off_by_at_most": max(abs(ratio - 1) for kind, ratio in ratios if kind != "peak"),
        "outside": [
            f"{row['shape']}, {row['layout']}, recompute {row['recompute']}: {kind} {ratio:.3f}"
            for row in rows
            for kind, ratio in row["ratios"].items()
            if abs(ratio - 1) > ALLOWED["peak" if kind == "peak" else "kind"]
        ],
    }


def comparison_rows(result: dict[str, Any]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the columns and the rows of a table of what `measure` found: of each run and kind planned / measured."""
    kinds = ["weights", "gradients", "moments", "activations", "step", "peak"]
    rows = [
        (
            row["shape"],
            row["layout"],
            row["recompute"],
            *(f"{row['ratios'][kind]:.3f}" if kind in row["ratios"] else "" for kind in kinds),
            in_bytes(row["measured"]["peak"]),
        )
        for row in result["rows"]
    ]
    return ["shape", "layout", "recompute", *kinds, "measured peak"], rows


def compare(shape: str, layout: str, recompute: str) -> dict[str, Any]:
    """Return one run's bytes by kind on its fullest process, measured and planned, and the ratios."""
    (config, how), divided = look_up("shape", shape, SHAPES), look_up("layout", layout, LAYOUTS)
    look_up("recompute", recompute, dict.fromkeys(RECOMPUTE))
    work = Work(
        micro_rows=how.micro_rows,
        n_micro=2,
        recompute=recompute,
        precision=how.precision,
        native_loss=is_native("cpu", getattr(torch, how.precision)),
    )
    processes = _measured(config, divided, work)
    fullest = max(range(len(processes)), key=lambda rank: processes[rank]["peak"])
    stages = stage_footprints(config, divided, work)
    measured, stage = processes[fullest], stages[fullest * divided.pp // divided.n_processes]
    kinds = _by_kind(measured)
    planned = {**planned_kinds(stage), "peak": max(stage.peak for stage in stages)}
    return {
        "shape": shape,
        "layout": layout,
        "recompute": recompute,
        "precision": work.precision,
        "measured": {**kinds, "beside": measured["beside"]},
        "planned": {kind: planned[kind] for kind in kinds},
        "ratios": {kind: planned[kind] / kinds[kind] for kind in kinds},
    }


def planned_kinds(memory: Footprint) -> dict[str, int]:
    """Return what a plan says of the kinds that can be measured."""
    planned = {name: getattr(memory, name) for name in ("weights", "gradients", "moments", "peak")}
    return _by_kind({**planned, "activations": memory.before_loss})


def _by_kind(n_bytes: dict[str, int]) -> dict[str, int]:
    """Return the kinds in order, with `step`: all of the peak beside weights, gradients and moments.

    `activations` are the part of that which is there when a loss begins.
    """
    lasting = {kind: n_bytes[kind] for kind in ("weights", "gradients", "moments")}
    at_loss = {"activations": n_bytes["activations"]} if "activations" in n_bytes else {}
    return {**lasting, **at_loss, "step": n_bytes["peak"] - sum(lasting.values()), "peak": n_bytes["peak"]}


def _measured(config: GPTConfig, layout: Layout, work: Work) -> list[dict[str, int]]:
    """Return what each process of a run takes."""
    n_tokens = work.micro_rows * work.n_micro * layout.n_data * config.n_ctx
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(_text(6 * n_tokens), encoding="utf-8")
        given = {
            "text": str(folder / "text.txt"),
            "n_tokens": 4 * n_tokens,
            "data": {"tokenizer": "chars"},
            "model": _plain(config),
            "schedule": {"batch_tokens": n_tokens, "batch_start_tokens": n_tokens, "ramp_tokens": 0},
            "optimizer": {"name": work.optimizer},
            "loop": {
                "compile": "never",
                "precision": work.precision,
                "recompute": work.recompute,
                "micro_rows": work.micro_rows,
            },
        }
        if layout != Layout():
            given["parallel"] = {name: getattr(layout, name) for name in SIZES}
        words = ["-m", "fewshot.bench.memory", json.dumps(given), str(folder / "run"), str(folder / "measured")]
        if layout.n_processes > 1:
            count = str(layout.n_processes)
            words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count, *words]
        environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        if done.returncode:
            raise BadValue(
                f"the run that was to be measured ended with {done.returncode}: {done.stderr.strip()[-500:]}"
            )
        return [json.loads(path.read_text()) for path in sorted(folder.glob("measured.*"))]


def _plain(config: GPTConfig) -> dict[str, Any]:
    names = ("n_layers", "d_model", "n_heads", "n_ctx", "n_vocab", "pattern", "tied")
    return {name: getattr(config, name) for name in names}


def _text(n_letters: int) -> str:
    """Return so many letters in words and paragraphs, the same each time."""
    words = [f"{seed_of('word', i):x}"[:6] for i in range(500)]
    lines = [
        " ".join(words[seed_of("place", line, i) % 500] for i in range(20)) for line in range(n_letters // 140 + 1)
    ]
    return "\n\n".join(lines)
