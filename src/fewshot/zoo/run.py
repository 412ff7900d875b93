"""Findings run by the commands that they name, several at once. In: tasks, a folder. Out: their printed results.

Each task has a folder of its own, whose name holds a digest of what was asked: what is done is not run again, what was
interrupted goes on as its command does, and a changed finding starts afresh. What tasks are prepared by has a folder
alike, which all tasks with the same preparation read. Knows no statement.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fewshot.base.config import to_plain
from fewshot.base.errors import FewshotError
from fewshot.base.files import parse_json, read_json, read_text, write_json, write_text
from fewshot.base.lock import hold
from fewshot.bench.hardware import hardware
from fewshot.checkpoint.folder import RunFolder
from fewshot.train.ladder.series import is_ladder
from fewshot.zoo.finding import PREPARED, RunTask

OUT = "{out}"
RESULT, LOG, DONE = "result.json", "log.txt", "done"
PROGRAM = (sys.executable, "-m", "fewshot")
LONGEST = 200  # characters of a command's last line in a message


@dataclass(frozen=True)
class Job:
    """A task of a finding."""

    finding: str
    path: str  # of its result in the finding's results
    task: RunTask

    @property
    def name(self) -> str:
        """The names of both, as messages show them."""
        return f"{self.finding}: {self.path}"

    def folder(self, out: Path) -> Path:
        """Return where the task's files are."""
        return out / self.finding / f"{self.path}-{_digest(to_plain(self.task))}"


def _digest(asked: Any) -> str:
    """Return a name for what was asked."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


class Runner:
    """Runs jobs, `at_once` of them at a time, each in processes of its own."""

    def __init__(self, out: Path, *, at_once: int, program: Sequence[str] = PROGRAM) -> None:
        self.out, self.at_once, self.program = out, at_once, program
        self.stopping = False
        self.children: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()
        self.preparing: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, dict[str, Any] | FewshotError]]:
        """Yield every job with its record, or with why it has none, as they end; on Ctrl-C all are stopped first."""
        pool = ThreadPoolExecutor(self.at_once)
        ending = {pool.submit(self._record, job): job for job in jobs}
        try:
            for future in as_completed(ending):
                failure = future.exception()
                if failure is None:
                    yield ending[future], future.result()
                elif isinstance(failure, FewshotError):
                    yield ending[future], failure
                else:
                    raise failure
        finally:
            self._stop()
            pool.shutdown(cancel_futures=True)

    def _stop(self) -> None:
        with self.lock:
            self.stopping = True
            for child in self.children:
                child.send_signal(signal.SIGTERM)  # a program in the background may ignore SIGINT

    def _record(self, job: Job) -> dict[str, Any]:
        """Return what a job printed, with what was asked, its seconds and the machine; run it if that is not there."""
        folder = job.folder(self.out)
        path = folder / RESULT
        if path.is_file():
            return dict(read_json(path))
        with hold(folder, doing="fewshot verify"):
            began = time.monotonic()
            *prepare, last = job.task.commands
            places = {OUT: folder / "out"}
            if prepare:
                places[PREPARED] = self._prepared(prepare, job)
                last = last.replace(PREPARED, str(places[PREPARED]))
            words = _words(last, folder)
            if job.task.config:
                write_text(folder / "config.yaml", yaml.safe_dump(job.task.config, sort_keys=False))
                words += ["--config", str(folder / "config.yaml")]
            printed = self._call([*words, "--json"], folder, job)
            for name, place in places.items():
                printed = printed.replace(str(place), name)  # whoever runs it elsewhere gets the same result
            record = {
                "asked": to_plain(job.task),
                "seconds": round(time.monotonic() - began, 1),
                "machine": hardware(),
                "result": parse_json(printed, f"what 'fewshot {last}' printed"),
            }
            write_json(path, record)
            return dict(record)

    def _prepared(self, commands: Sequence[str], job: Job) -> Path:
        """Return the folder that commands have written to; they are run unless they were, by whichever job is first."""
        folder = self.out / "prepared" / _digest(list(commands))
        with self.lock:
            waiting = self.preparing[folder]
        with waiting:
            if not (folder / DONE).is_file():
                with hold(folder, doing="fewshot verify"):
                    for text in commands:
                        self._call(shlex.split(text.replace(PREPARED, str(folder / "out"))), folder, job)
                    write_text(folder / DONE, "")
        return folder / "out"

    def _call(self, words: Sequence[str], folder: Path, job: Job) -> str:
        """Return what a command prints; raises FewshotError with its last line if it fails."""
        words = _gone_on_with(words)
        threads = {"OMP_NUM_THREADS": "1"} if self.at_once > 1 else {}
        with (folder / LOG).open("ab") as log:
            with self.lock:
                if self.stopping:
                    raise FewshotError(f"{job.name} was stopped")
                child = subprocess.Popen(
                    [*self.program, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches it once, from here: a second one would lose its last steps
                    env={**os.environ, **threads},
                )
                self.children.add(child)
            printed, _ = child.communicate()
            with self.lock:
                self.children.discard(child)
        if child.returncode:
            lines = read_text(folder / LOG).split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
            raise FewshotError(
                f"{job.name}: 'fewshot {shlex.join(words)}' ended with exit code {child.returncode}: "
                f"{last[-LONGEST:]} (all it said: {folder / LOG})"
            )
        return printed.decode("utf-8", "replace")


def _words(text: str, folder: Path) -> list[str]:
    """Return a command's words, with the folder that it writes to."""
    words = [word.replace(OUT, str(folder / "out")) for word in shlex.split(text)]
    return words if OUT in text else [*words, "--out", str(folder / "out")]


def _gone_on_with(words: Sequence[str]) -> Sequence[str]:
    """Return `resume` for a `train` that was stopped; the other commands go on by themselves."""
    if words[0] != "train" or "--out" not in words:
        return words
    run = RunFolder(Path(words[words.index("--out") + 1]))
    has_begun = run.config.is_file() or is_ladder(run.path)
    return ["resume", str(run.path), *(word for word in words if word == "--json")] if has_begun else words


def as_results(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results of a finding's runs as its statements' paths read them: `run`, or `run` and then the seed."""
    results: dict[str, Any] = {}
    for path, record in records.items():
        run, dot, seed = path.partition(".")
        if dot:
            results.setdefault(run, {})[seed] = record["result"]
        else:
            results[run] = record["result"]
    return results
