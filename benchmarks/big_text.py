"""Text larger than memory: generate it, tokenise it and train some steps on it, and watch the memory of all processes.

    PYTHONPATH=src python benchmarks/big_text.py --gigabytes 10 --json benchmarks/results/big_text.json

Half of the text is one file that is a single document, the other half JSON lines. Memory is the sum over the process
and all below it of their proportional set sizes (Pss of /proc/PID/smaps_rollup: what a process shares is divided by the
number of those who share it), looked at five times a second; beside it the highest resident size of each (VmHWM), in
which shared pages count for every process. The share of processor time that nobody used tells whether both cores were
busy, whatever else ran. tiktoken alone encodes a part of the same text, already in memory, with the run's own
vocabulary in one thread, right after the run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken

from fewshot.base.files import write_json
from fewshot.base.machine import n_cores
from fewshot.base.rng import numpy_rng
from fewshot.bench.hardware import hardware
from fewshot.tokenizer.bpe import BPE
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.pieces import pieces

N_WORDS = 300_000  # of the language that is generated, about
BLOCK_WORDS = 1 << 18
NEW_WORDS = 0.002  # share of the words that occur once: names, numbers, misspellings
LOOK_SECONDS = 0.2
ALONE_BYTES = 48_000_000  # that tiktoken encodes alone


def language() -> np.ndarray:
    """The words, the most frequent first, which are also the shortest."""
    rng = numpy_rng("big text", "language")
    onsets = ["", *"bcdfghklmnprstvw", "br", "ch", "gr", "pl", "st", "th", "tr"]
    vowels, codas = [*"aeiou", "ea", "ou"], ["", *"nrst", "ll", "nd", "st"]
    syllables = np.array([a + b + c for a in onsets for b in vowels for c in codas], dtype=object)
    words = dict.fromkeys(rng.permutation(syllables).tolist())
    for n_syllables in (2, 3, 4):
        chosen = syllables[rng.integers(len(syllables), size=(N_WORDS // 3, n_syllables))]
        words |= dict.fromkeys("".join(row) for row in chosen.tolist())
    return np.array(list(words), dtype=object)


def blocks(n_bytes: int, name: str) -> Iterator[str]:
    """Text of about so many bytes: words by Zipf's law in sentences and paragraphs."""
    rng, words = numpy_rng("big text", name), language()
    shares = 1 / (np.arange(len(words)) + 2.7)
    ends = np.cumsum(shares / shares.sum())
    n_done = 0
    while n_done < n_bytes:
        chosen = words[np.searchsorted(ends, rng.random(BLOCK_WORDS)).clip(max=len(words) - 1)]
        new = np.flatnonzero(rng.random(BLOCK_WORDS) < NEW_WORDS)
        chosen[new] = [f"{number:x}" for number in rng.integers(16**5, 16**9, len(new))]
        stops = np.flatnonzero(rng.random(BLOCK_WORDS) < 1 / 18)
        chosen[stops] = [
            word + (".\n\n" if stop % 6 == 0 else ".") for stop, word in zip(stops, chosen[stops], strict=True)
        ]
        text = " ".join(chosen.tolist()).replace("\n ", "\n") + "\n"
        n_done += len(text)
        yield text


def generate(folder: Path, n_bytes: int) -> list[Path]:
    """Write the text and return its files."""
    book, pages = folder / "book.txt", folder / "pages.jsonl"
    with book.open("w") as file:
        file.writelines(blocks(n_bytes // 2, "book"))
    rng = numpy_rng("big text", "lengths")
    with pages.open("w") as file:
        for text in blocks(n_bytes - n_bytes // 2, "pages"):
            start = 0
            while start < len(text):
                end = start + int(rng.lognormal(7.6, 1))  # half of the documents are longer than 2,000 characters
                file.write(json.dumps({"text": text[start:end]}) + "\n")
                start = end
    return [book, pages]


class Watch:
    """Memory and processor time of a process and all below it, looked at until it ends."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_pss = self.peak_processes = 0
        self.highest: dict[int, tuple[str, int]] = {}  # of each process: its command and VmHWM
        self.cpu: dict[int, float] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while tree := self._tree():
            pss = 0
            for pid in tree:
                pss += 1024 * _field(f"/proc/{pid}/smaps_rollup", "Pss:")
                command = " ".join(_read(f"/proc/{pid}/cmdline").split("\0"))[:80]
                self.highest[pid] = command, 1024 * _field(f"/proc/{pid}/status", "VmHWM:")
                parts = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
                if parts:
                    self.cpu[pid] = (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")
            if pss > self.peak_pss:
                self.peak_pss, self.peak_processes = pss, len(tree)
            time.sleep(LOOK_SECONDS)

    def _tree(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                parts = _read(entry / "stat").rpartition(")")[2].split()
                if parts and parts[0] != "Z":
                    parents.setdefault(int(parts[1]), []).append(int(entry.name))
        known = {pid for children in parents.values() for pid in children}
        tree = [self.pid] if self.pid in known else []
        for pid in tree:
            tree += parents.get(pid, [])
        return tree

    def cpu_seconds(self) -> float:
        return sum(self.cpu.values())


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _field(path: str, name: str) -> int:
    return next((int(line.split()[1]) for line in _read(path).splitlines() if line.startswith(name)), 0)


def machine_seconds() -> tuple[float, float]:
    """Seconds of all processors together: idle, and all."""
    ticks = [int(n) / os.sysconf("SC_CLK_TCK") for n in _read("/proc/stat").split("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def train(command: list[str]) -> dict[str, Any]:
    """Run the command and return its times and memory by stage, as its own lines tell them apart."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    watch = Watch(process.pid)
    marks: dict[str, tuple[float, float, float, float, int]] = {}

    def mark() -> tuple[float, float, float, float, int]:
        return time.perf_counter() - began, watch.cpu_seconds(), *machine_seconds(), watch.peak_pss

    first = mark()
    assert process.stderr is not None
    for line in process.stderr:
        print(line, end="", file=sys.stderr, flush=True)
        stage = {"tokenizer: byte": "reading", "source text": "tokenising", "plan": "planning"}
        for start, name in stage.items():
            if line.startswith(start):
                marks[name] = mark()
    if process.wait() != 0:
        raise SystemExit(f"the command failed with {process.returncode}")
    marks["training"] = mark()
    stages = {}
    for (name, end), start in zip(marks.items(), [first, *marks.values()], strict=False):
        seconds, cpu, idle, total, _ = (b - a for a, b in zip(start, end, strict=True))
        stages[name] = {
            "seconds": seconds,
            "cores_by_this": cpu / seconds,
            "machine_idle": idle / total if total else 0.0,
            "peak_pss_bytes_so_far": end[-1],
        }
    return {
        "stages": stages,
        "peak_pss_bytes": watch.peak_pss,
        "processes_at_peak": watch.peak_processes,
        "vm_hwm_bytes": sorted((n_bytes for _, n_bytes in watch.highest.values()), reverse=True),
        "vm_hwm_commands": [command for command, _ in sorted(watch.highest.values(), key=lambda row: -row[1])],
    }


def tiktoken_alone(run: Path, path: Path) -> float:
    """Megabytes a second of the bare library in one thread, over a part of the text in pieces that are in memory."""
    tokenizer = load_tokenizer(run)
    assert isinstance(tokenizer, BPE)
    ours = tokenizer.encoding
    bare = tiktoken.Encoding(
        "bare", pat_str=ours._pat_str, mergeable_ranks=ours._mergeable_ranks, special_tokens=ours._special_tokens
    )
    with path.open() as file:
        parts = list(pieces(file.read(ALONE_BYTES)))
    began = time.perf_counter()
    for part in parts:
        bare.encode_to_numpy(part, disallowed_special=())
    return sum(map(len, parts)) / 1e6 / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where text and run are made, and deleted at the end")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="big-text-", dir=args.folder))
    try:
        began = time.perf_counter()
        paths = generate(folder, int(args.gigabytes * 1e9))
        n_bytes = sum(path.stat().st_size for path in paths)
        print(f"{n_bytes:,} bytes generated in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        run = folder / "run"
        words = [*("--preset", "tiny-1m", "--n_tokens", str(args.steps * 16384), "--schedule.batch_tokens", "16384")]
        words += ["--schedule.warmup_tokens", "16384", "--schedule.batch_start_tokens", "16384"]
        load = os.getloadavg()[0]
        text = ["--text", *map(str, paths)]
        measured = train([sys.executable, "-m", "fewshot.cli.main", "train", *text, "--out", str(run), *words])
        indexes = [json.loads(path.read_text()) for path in sorted((run / "data").glob("*.json"))]
        shards = [shard for index in indexes for shard in index["shards"]]
        rate = sum(shard["n_bytes"] for shard in shards) / 1e6 / measured["stages"]["tokenising"]["seconds"]
        alone = tiktoken_alone(run, paths[0])
        result = {
            "bench": "big text",
            "command": shlex.join(["python", "benchmarks/big_text.py", *sys.argv[1:]]),
            "machine": {**hardware(), "tiktoken": version("tiktoken"), "tokenizers": version("tokenizers")},
            "load_before": load,
            "load_after": os.getloadavg()[0],
            "text_bytes": n_bytes,
            "tokens": sum(shard["n_tokens"] for shard in shards),
            "shards": len(shards),
            "steps": args.steps,
            "megabytes_per_second": {
                "ours": rate,
                "tiktoken_one_thread": alone,
                "tiktoken_times_cores": alone * n_cores(),
            },
            "ratio": rate / (alone * n_cores()),
            **measured,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
