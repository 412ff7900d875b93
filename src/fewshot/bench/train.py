"""Tokens a second of our training, beside its own matrix products alone and beside other libraries, in turns.

In: folders of the peers, the number of rounds. Out: medians, and ratios of medians. Each side runs in a process of
its own (`training_side`), and they take turns, so that a noisy machine disturbs all alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadValue, check
from fewshot.bench import llmc

SHAPES: dict[str, dict[str, int]] = {
    "6x256": {"n_layers": 6, "d_model": 256, "n_heads": 4, "n_ctx": 512, "n_vocab": 8192, "n_rows": 8},
    "12x768": {"n_layers": 12, "d_model": 768, "n_heads": 12, "n_ctx": 512, "n_vocab": 50257, "n_rows": 2},
}
DTYPES = ("float32", "bfloat16")
NORMUON_SHAPE = "6x256"  # where NorMuon's share of a step is largest, and so is measured
RAMP_TURN_STEPS = 12  # more than the batch grows over

Say = Callable[[str], None]


def measure(
    shapes: Sequence[str], *, rounds: int, nanogpt: Path | None, llmc_folder: Path | None, first_steps: bool, say: Say
) -> dict[str, Any]:
    """Return a row for each shape: our tokens a second, their share of the products' rate, and each peer's.

    `first_steps`: also measure the seconds to the first step with an empty and with a filled cache, and count what is
    compiled anew while the batch grows. Raises `BadValue` for a folder that does not hold the peer.
    """
    check(
        nanogpt is None or (nanogpt / "model.py").is_file(),
        f"--nanogpt {nanogpt}: there is no model.py in it: give nanoGPT's folder",
    )
    check(
        llmc_folder is None or (llmc_folder / "train_gpt2.c").is_file(),
        f"--llmc {llmc_folder}: there is no train_gpt2.c in it: give llm.c's folder",
    )
    return {
        "rounds": rounds,
        "rows": [_row(name, rounds, nanogpt, llmc_folder, first_steps, say) for name in shapes],
    }


def _row(
    name: str, rounds: int, nanogpt: Path | None, llmc_folder: Path | None, first_steps: bool, say: Say
) -> dict[str, Any]:
    shape = SHAPES[name]
    n_tokens = shape["n_rows"] * shape["n_ctx"]
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        fresh = {"FEWSHOT_CACHE": str(folder / "cache"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}

        def python_side(side: str, **options: Any) -> Side:
            given = {**shape, "side": side, "folder": temporary, **options}
            command = [sys.executable, "-m", "fewshot.bench.training_side", json.dumps(given)]
            return stack.enter_context(started(side, command, fresh if side == "ours" else {}))

        def our_side(*, optimizer: str = "adamw", ramp: bool = False) -> Side:
            return python_side("ours", optimizer=optimizer, ramp=ramp, loop={})

        row: dict[str, Any] = {"shape": name, **shape}
        say(f"{name}: our first step, with an empty cache")
        sides = {"ours": our_side()}
        ready = sides["ours"].ready
        row |= {key: ready[key] for key in ("precision", "compile", "kernel")}
        if first_steps:
            say(f"{name}: our first step, with a filled cache; and a growing batch")
            warm, ramp = our_side(), our_side(ramp=True)
            grown = ramp.turn(RAMP_TURN_STEPS)
            warm.stop()
            ramp.stop()
            row["first_step_seconds"] = {"cold": ready["first_step_seconds"], "warm": warm.ready["first_step_seconds"]}
            row["recompilations_over_a_ramp"] = grown["graphs"] - ramp.ready["graphs"]
        for dtype in DTYPES:
            sides[f"products {dtype}"] = python_side("products", dtype=dtype)
        if name == NORMUON_SHAPE:
            sides["ours normuon"] = our_side(optimizer="normuon")
        sides["transformers eager float32"] = python_side("transformers")
        if nanogpt is not None:
            for dtype in DTYPES:
                for compiled in (False, True):
                    say(f"{name}: nanoGPT's first step, {dtype}, {'compiled' if compiled else 'eager'}")
                    label = f"nanoGPT {'compiled' if compiled else 'eager'} {dtype}"
                    sides[label] = python_side("nanogpt", path=str(nanogpt), dtype=dtype, compiled=compiled)
        if llmc_folder is not None:
            sides["llm.c"] = stack.enter_context(started("llm.c", llmc.command(llmc_folder, folder, shape), {}))
        turns = _in_turns(sides, rounds, say=lambda line: say(f"{name}: {line}"))
    return {**row, **summary(turns, ready=sides["products float32"].ready, row=row, n_tokens=n_tokens)}


def _in_turns(sides: Mapping[str, Side], rounds: int, *, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Return what each side reported of its turns, after one that does not count."""
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            report = side.turn(1)
            if number:
                turns[name].append(report)
        say(f"round {number} of {rounds}" + ("" if number else " (not counted)"))
    return turns


def summary(
    turns: Mapping[str, Sequence[Mapping[str, Any]]], *, ready: Mapping[str, Any], row: Mapping[str, Any], n_tokens: int
) -> dict[str, Any]:
    """Return medians of the turns, and ratios of them; peers by name, each with how many times as fast ours is."""
    seconds = {name: statistics.median(report["seconds"] for report in side) for name, side in turns.items()}
    ours, own_products = seconds["ours"], seconds[f"products {row['precision']}"]
    peers = {name: seconds[name] for name in seconds if not name.startswith(("ours", "products"))}
    gflops = ready["flops"]["linear"] / 1e9
    result: dict[str, Any] = {
        "tokens_per_second": n_tokens / ours,
        "share_of_products": own_products / ours,
        "parts": _shares(turns["ours"]),
        "products": {
            dtype: {
                "seconds": seconds[f"products {dtype}"],
                "linear_gflops_per_second": gflops / _part(turns[f"products {dtype}"], "linear"),
            }
            for dtype in DTYPES
        },
        "peers": [
            {"peer": name, "tokens_per_second": n_tokens / peer, "ratio": peer / ours} for name, peer in peers.items()
        ],
    }
    if "ours normuon" in turns:
        result["normuon"] = {
            "tokens_per_second": n_tokens / seconds["ours normuon"],
            "parts": _shares(turns["ours normuon"]),
        }
    return result


def _part(side: Sequence[Mapping[str, Any]], part: str) -> float:
    return statistics.median(report["parts"][part] for report in side)


def _shares(side: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what share of a step each part has, by the medians of the parts."""
    medians = {part: _part(side, part) for part in side[0]["parts"]}
    total = sum(medians.values())
    return {part: median / total for part, median in medians.items()}


class Side:
    """A process that takes a turn for every line it reads."""

    def __init__(self, name: str, command: Sequence[str], more: Mapping[str, str]) -> None:
        # Threads that spin would be in the way of the other sides; the command line sets the same for its own process.
        environment = {"GOMP_SPINCOUNT": "1000", **os.environ, **more}
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  a pipe that nobody reads would fill and stop the side
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self.ready = self._answer()

    def turn(self, steps: int) -> dict[str, Any]:
        """Return what the side reports of so many steps; blocks until they are done."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # told below, with the side's own last words
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the process, however far it is."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):  # of what was written for a side that is gone
                if stream is not None:
                    stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            last = (self.errors.read().decode(errors="replace").strip() or "no word").splitlines()[-1]
            raise BadValue(f"the bench's side {self.name} ended: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def started(name: str, command: Sequence[str], more: Mapping[str, str]) -> Iterator[Side]:
    """Start a side, and end it when the block does."""
    side = Side(name, command, more)
    try:
        yield side
    finally:
        side.stop()
