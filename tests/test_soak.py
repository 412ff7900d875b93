"""Bad days at random: runs are trained, stopped, killed, copied, measured and filled up; nothing is ever lost.

FEWSHOT_SOAK_ACTIONS and FEWSHOT_SOAK_SEED choose how many actions, and which. After each one: every checkpoint that was
there is there unchanged, or was pruned with newer good ones in its place; every figure is there, or one on more
questions is; every file can be read and holds finite numbers alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from fewshot.checkpoint.folder import step_of
from fewshot.checkpoint.manifest import is_as_written

ACTIONS, SEED = (
    int(os.environ.get(f"FEWSHOT_SOAK_{name}", default)) for name, default in (("ACTIONS", 200), ("SEED", 0))
)
SLOTS, KEEP, N_STEPS = 5, 2, 150
SHAPE = [
    *("--data.tokenizer", "chars", "--model.n_layers", "1", "--model.d_model", "16", "--model.n_heads", "2"),
    *("--model.n_ctx", "64", "--schedule.n_tokens", str(64 * N_STEPS), "--schedule.batch_tokens", "64"),
    *("--schedule.batch_start_tokens", "64", "--schedule.ramp_tokens", "0", "--schedule.warmup_tokens", "0"),
    *("--schedule.decay_tokens", str(64 * N_STEPS), "--loop.compile", "never", "--loop.kernel", "sdpa"),
    *("--loop.checkpoint_every", "10", "--loop.keep_checkpoints", str(KEEP), "--loop.log_every", "1"),
    *("--loop.validate_every", "25", "--loop.micro_rows", "1"),
]
DONE = (0, 2, 130)  # codes of a command that came to its own end
STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


def fewshot(*words: str, full_after: int | None = None, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a command; with `full_after`, no file of it may grow beyond so many bytes."""

    def limit() -> None:
        if full_after is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (full_after, full_after))

    return subprocess.Popen(
        [*before, sys.executable, "-m", "fewshot", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def ended(process: subprocess.Popen[str], allowed: tuple[int, ...] = DONE) -> int:
    _, errors = process.communicate(timeout=240)
    assert process.returncode in allowed, (process.args, process.returncode, errors)
    was_in_python = allowed != DONE and "KeyboardInterrupt" in errors  # the signal met its beginning or its end
    assert "Traceback" not in errors or was_in_python, (process.args, errors)
    return process.returncode


# ---- what is on disk


def files_of(root: Path) -> Iterator[Path]:
    """All files but those that a killed process left half written, under names that nobody reads."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.endswith(".partial")]
        yield from (Path(folder) / name for name in files)


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def read(path: Path) -> Any:
    """The content of a file that can be read, checked to be finite."""
    text = path.read_text() if path.suffix in (".json", ".jsonl", ".yaml") else ""
    if path.suffix == ".json":
        return json.loads(text, parse_constant=refuse)
    if path.suffix == ".jsonl":
        return [json.loads(line, parse_constant=refuse) for line in text.split("\n")[:-1]]
    if path.suffix == ".yaml":
        return yaml.safe_load(text)
    if path.suffix == ".safetensors":
        assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path
    return None


def digest(folder: Path) -> str:
    content = [(path.name, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return hashlib.sha256(repr(content).encode()).hexdigest()


class Seen:
    """Everything of worth below a folder at one moment."""

    def __init__(self, root: Path) -> None:
        self.parsed = {path: read(path) for path in files_of(root)}
        folders = [path for path in root.glob("*/checkpoints/*") if not path.name.startswith(".")]
        self.checkpoints = {path: digest(path) if path.is_dir() else path.read_text() for path in folders}
        self.figures: dict[tuple[Any, ...], tuple[int, float]] = {}
        for path, plain in self.parsed.items():
            if "evaluations" in path.parts and path.suffix == ".json" and isinstance(plain, dict):
                run = path.parts[: path.parts.index("evaluations")]
                for row in plain.get("results", []):
                    condition = tuple(row.get(name) for name in ("task", "protocol", "metric", "shots", "seed"))
                    figure = (row["n"] + row["n_skipped"], row["value"])
                    key = (run, plain.get("weights"), *condition)
                    self.figures[key] = max(figure, self.figures.get(key, figure), key=lambda pair: pair[0])

    def lost(self, later: Seen) -> Iterator[str]:
        """What was there and is not there any more, nor anything better."""
        for path, was in self.checkpoints.items():
            if later.checkpoints.get(path) == was:
                continue
            newer = [
                other
                for other in later.checkpoints
                if other.parent == path.parent
                and (step_of(other.name) or -1) > (step_of(path.name) or 0)
                and is_as_written(other)
            ]
            if path in later.checkpoints or step_of(path.name) is None or len(newer) < KEEP:
                yield f"checkpoint {path}"
        for key, (n, value) in self.figures.items():
            n_later, value_later = later.figures.get(key, (0, None))
            if n_later < n or (n_later == n and value_later != value):
                yield f"figure {key} on {n} questions, now {n_later}"


# ---- what happens


class Days:
    """Folders, and what may happen to them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng, self.n_made = root, random.Random(seed), 0
        self.may_mount = os.geteuid() == 0 and self._mounts()
        self.text = root.parent / "text.txt"
        words = random.Random(0).choices(["the", "cat", "sat", "on", "a", "mat", "->", "a b c"], k=1200)
        self.text.write_text(" ".join(words))
        self.runs = [self.new() for _ in range(SLOTS)]

    def new(self) -> Path:
        """A folder that is not there yet."""
        self.n_made += 1
        return self.root / f"run{self.n_made}"

    def train(self, run: Path) -> list[str]:
        return ["train", "--text", str(self.text), "--out", str(run), *SHAPE]

    def go_on(self, run: Path) -> list[str]:
        return ["resume", str(run)] if (run / "config.yaml").is_file() else self.train(run)

    def checkpoints(self, run: Path) -> list[Path]:
        return sorted(path for path in run.glob("checkpoints/*") if path.is_dir() and not path.name.startswith("."))

    def stop(self, run: Path) -> None:
        """Train on, and be stopped by one or two signals, somewhere between the start and the end."""
        process = fewshot(*self.go_on(run))
        metrics, wanted = run / "metrics.jsonl", self.rng.randrange(40)
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        is_early = self.rng.random() < 0.3  # while it imports, tokenises, loads
        until = time.monotonic() + (self.rng.uniform(0, 3) if is_early else 60)
        while process.poll() is None and time.monotonic() < until:
            if not is_early and metrics.exists() and metrics.read_bytes().count(b"\n") >= lines + wanted:
                break
            time.sleep(0.01)
        number = self.rng.choice(STOPS)
        process.send_signal(number)
        if self.rng.random() < 0.3:
            time.sleep(self.rng.uniform(0, 0.6))
            process.send_signal(self.rng.choice(STOPS))
        ended(process, (*DONE, *(-number for number in STOPS)))

    def finish(self, run: Path) -> None:
        ended(fewshot(*self.go_on(run)))

    def train_over(self, run: Path) -> None:
        """Train, without asking what is there already."""
        was_run = (run / "config.yaml").is_file()
        assert ended(fewshot(*self.train(run))) == (2 if was_run else 0)

    def measuring(self, run: Path) -> list[str]:
        model = str(self.rng.choice([run, *self.checkpoints(run)]))
        shots, limit = self.rng.choice(["0", "1", "0,2", "1,2"]), self.rng.choice([3, 6, 9])
        return ["evaluate", model, "--tasks", "novel_symbols", "--shots", shots, "--limit", str(limit)]

    def evaluate(self, run: Path) -> None:
        ended(fewshot(*self.measuring(run)))

    def report(self, run: Path) -> None:
        ended(fewshot("report", str(run)))

    def convert(self, run: Path) -> None:
        """There and back, and then train where the converted model is."""
        there, back = self.new(), self.new()
        if ended(fewshot("convert", str(run), str(there))) == 0:
            assert ended(fewshot("convert", str(there), str(back))) == 0
            assert ended(fewshot(*self.train(self.rng.choice([there, back])))) == 2

    def copy(self, run: Path) -> None:
        for path in self.checkpoints(run)[-1:]:
            name = self.rng.choice(
                [f"{path.name}-best", f"{path.name}.damaged", "step-old", f"step-{self.rng.random()}"]
            )
            if not path.with_name(name).exists():
                shutil.copytree(path, path.with_name(name))
            path.with_name("step-notes.txt").write_text("mine")

    def two_at_once(self, run: Path) -> None:
        commands = [self.go_on(run), self.rng.choice([self.go_on(run), self.train(run), self.measuring(run)])]
        codes = [ended(process) for process in [fewshot(*words) for words in commands]]
        assert codes[0] in (0, 2)

    def measure_at_once(self, run: Path) -> None:
        processes = [fewshot(*self.measuring(run)) for _ in range(3)]
        assert all(ended(process) in (0, 2) for process in processes)

    def full_disk(self, run: Path) -> None:
        words = self.rng.choice([self.go_on(run), self.measuring(run), ["report", str(run)]])
        ended(fewshot(*words, full_after=self.rng.choice([0, 200, 3_000, 20_000, 60_000])))

    def read_only(self, run: Path) -> None:
        """Where one may not write, as a mount of a namespace of its own."""
        if run.exists() and self.may_mount:
            words = self.rng.choice([self.go_on(run), self.measuring(run), ["report", str(run)]])
            script = f"mount --bind '{run}' '{run}' && mount -o remount,ro,bind '{run}' && exec \"$@\""
            ended(fewshot(*words, before=("unshare", "-m", "sh", "-c", script, "sh")))

    def _mounts(self) -> bool:
        script = f"mount --bind '{self.root}' '{self.root}' && mount -o remount,ro,bind '{self.root}'"
        try:
            return (
                subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, check=False).returncode == 0
            )
        except FileNotFoundError:
            return False

    def act(self) -> str:
        """Let one thing happen to one run; gives what."""
        often: list[tuple[Callable[[Path], None], int]] = [
            *((self.stop, 8), (self.finish, 1), (self.train_over, 1), (self.evaluate, 4), (self.report, 1)),
            *((self.convert, 1), (self.copy, 2), (self.two_at_once, 2), (self.measure_at_once, 1)),
            *((self.full_disk, 3), (self.read_only, 2)),
        ]
        slot = self.rng.randrange(SLOTS)
        (action,) = self.rng.choices([action for action, _ in often], [weight for _, weight in often])
        action(self.runs[slot])
        name = f"{action.__name__} {self.runs[slot].name}"
        if any(step_of(path.name) == N_STEPS for path in self.checkpoints(self.runs[slot])) and self.rng.random() < 0.3:
            self.runs[slot] = self.new()
        return name


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nothing_is_lost_on_any_of_many_bad_days(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    days = Days(root, SEED)
    before, done = Seen(root), []
    for number in range(ACTIONS):
        done.append(days.act())
        after = Seen(root)
        lost = list(before.lost(after))
        assert not lost, (SEED, number, done[-5:], lost)
        before = after
    for run in days.runs:
        days.finish(run)
    ends = [path.read_bytes() for path in root.glob(f"*/checkpoints/step-{N_STEPS:08d}/model.safetensors")]
    assert len(ends) >= SLOTS
    assert len(set(ends)) == 1  # whatever happened on the way, a run ends with the same bits
