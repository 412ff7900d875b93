"""Results on disk, and beside them the answers that they were taken from.

In: a folder for all results, such as RUN/evaluations. Out: in it a folder for each model that was evaluated,

step-00002000/                     a checkpoint's
    TASK.json                      results; TASK.lm-eval.json under the harness's protocol
    answers/TASK.PROTOCOL.jsonl    in the order in which they came
    contamination/TASK.json
step-00002000-1a2b3c4d/            other weights of that step: of a training that was done anew in the same folder
NAME-1a2b3c4d/                     a model of another program, by a digest of its weights

A measurement is known by its metric, K, seed and set of questions, and is replaced by the same one alone. Each write
locks the folder and begins with what is there by then. A file that cannot be read is named and left out, and only
writing that file is refused. Files from before there were such folders are read, not written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewshot.base.dist import rank
from fewshot.base.errors import BadFile, BadValue, NotFinite
from fewshot.base.files import read_json, to_json, written_whole
from fewshot.base.lock import hold
from fewshot.base.log import note
from fewshot.evaluate.protocol import GPT3
from fewshot.evaluate.result import Result, TaskAnswers
from fewshot.evaluate.store.answers import WAIT_SECONDS, WRITING, AnswerFile, begin, to_bytes, weights_of_answers
from fewshot.evaluate.task import Task

FORMER = "steps"  # folder of older checkpoints' results, formerly; those of the newest lay in no folder of their own
OF_STEP = re.compile(r"step-\d+(-[0-9a-f]{8})?")

Row = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """One file of results: plain values, with the checksum that each had when it was written ("" formerly)."""

    path: Path
    step: int
    weights: str
    rows: tuple[Row, ...]
    checksums: tuple[str, ...]

    def results(self) -> list[Result]:
        """Return its results as they were measured; those that were changed since then are left out with a note."""
        known = [
            row for row, checksum in zip(self.rows, self.checksums, strict=True) if checksum in ("", _checksum(row))
        ]
        n_changed = len(self.rows) - len(known)
        if n_changed:
            note(
                f"{self.path}: {n_changed} of its results were changed after they were measured and are left out: "
                "measure them again"
            )
        return [Result.from_json(row, where=str(self.path)) for row in known]


@dataclass(frozen=True, kw_only=True)
class ResultsStore:
    """The stored results and answers of one model: in `root`, the folder for all models' results, a folder of its own.

    `weights` tells one model from another; `name` is of one that is no checkpoint of ours.
    """

    root: Path
    weights: str
    step: int
    name: str = ""

    def folder(self, *, begun: str = "") -> Path:
        """Return the model's folder; see `folder_of`."""
        return folder_of(self.root, self.weights, step=self.step, name=self.name, begun=begun)

    def check(self, task: Task) -> None:
        """Raise BadFile where the task's file of results is damaged, so that it is refused before anything is asked."""
        path = _file_of(self.folder(), task)
        if path.is_file():
            read_stored(path)

    def answers(self, task: Task) -> AnswerFile:
        """Return the task's answers as a store for `evaluate`; the file is made if there is none."""
        file = f"{task.name}.{task.protocol.name}.jsonl"
        return AnswerFile(self.folder(begun=file) / "answers" / file, self.weights, lock=self.root)

    def add(self, task: Task, answers: Sequence[TaskAnswers]) -> None:
        """Put the results of the answers into the task's file; all others stay in it.

        Under torchrun the first process does it for all.
        """
        if rank() == 0:
            rows = [result.to_json() for of_one_k in answers for result in of_one_k.results()]
            path = _file_of(self.folder(), task)
            merge(path, rows, _result_key, step=self.step, weights=self.weights, lock=self.root)


def open_store(root: Path, weights: str, *, step: int, name: str, wanted: bool) -> ResultsStore | None:
    """Return the store of one model; None, with a note, where its folder cannot be written.

    Raises BadValue instead where the folder was `wanted` by name.
    """
    try:
        with hold(root, doing=WRITING, wait_seconds=WAIT_SECONDS):
            return ResultsStore(root=root, weights=weights, step=step, name=name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if wanted:
            raise BadValue(f"--out {root} cannot be written ({reason}): give another folder") from None
        note(f"{root} cannot be written ({reason}): results are printed and not stored; --out FOLDER stores them")
        return None


def folder_of(root: Path, weights: str, *, step: int, name: str = "", begun: str = "") -> Path:
    """Return the folder in `root` for the results of these weights; it holds nothing of other weights.

    With `begun`, the name of a file of answers, that file is made there, so that no other weights take the folder.
    """
    short = hashlib.blake2b(weights.encode(), digest_size=4).hexdigest()
    if name:  # the same weights under another name have the same folder
        former = [path for path in sorted(root.glob(f"*-{short}")) if not OF_STEP.fullmatch(path.name)]
        places = [*former, root / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('.-') or 'model'}-{short}"]
    else:
        places = [root / f"step-{step:08d}", root / f"step-{step:08d}-{short}"]
    with hold(root, doing=WRITING, wait_seconds=WAIT_SECONDS):
        own = next((path for path in places if _weights_in(path) <= {weights}), None)
        if own is None:
            raise BadFile(f"{places[-1]} holds results of other weights: move them away")
        if begun:
            begin(own / "answers" / begun, weights)
        return own


def _weights_in(folder: Path) -> set[str]:
    """Return the weights whose results and answers are in a folder."""
    files = [*folder.glob("*.json"), *folder.glob("contamination/*.json"), *folder.glob("answers/*.jsonl")]
    return {_weights_of(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files} - {""}


@lru_cache(maxsize=4096)  # so that there is one note for a file that cannot be read
def _weights_of(path: Path, mtime_ns: int, size_bytes: int) -> str:
    """Return the weights that a file names, or "" where it names none."""
    try:
        if path.suffix == ".jsonl":
            return weights_of_answers(path)
        stored = read_json(path)
    except (BadFile, OSError) as error:
        note_left_out(path, error)
        return ""
    return str(stored.get("weights", "")) if isinstance(stored, dict) else ""


def note_left_out(path: Path, error: Exception) -> None:
    """Note that a file is left out, with the reason and the way out: one damaged file is in the way of no other."""
    reason = str(error).replace(str(path), path.name)
    note(f"{path} cannot be read and is left out: move it away ({reason})")


def _file_of(folder: Path, task: Task) -> Path:
    return folder / f"{task.name}{'' if task.protocol is GPT3 else f'.{task.protocol.name}'}.json"


def _result_key(row: Row) -> tuple[Any, ...]:
    """Return what tells one measurement of a task from another."""
    n_asked = row["n"] + row["n_skipped"]
    return row["metric"], row["shots"], row["seed"], n_asked, row.get("questions", ""), row["source"]


def merge(
    path: Path, rows: Iterable[Row], key: Callable[[Row], tuple[Any, ...]], *, step: int, weights: str, lock: Path
) -> list[Row]:
    """Put rows into a file, in place of those of the same key alone; return all that it holds then, in order of key."""
    with hold(lock, doing=WRITING, wait_seconds=WAIT_SECONDS):
        stored = read_stored(path) if path.is_file() else Stored(path, step, weights, (), ())
        if stored.weights != weights:
            raise BadFile(f"{path} holds results of other weights: move it away")
        try:
            merged = {key(row): (row, known) for row, known in zip(stored.rows, stored.checksums, strict=True)}
            merged |= {key(row): (row, _checksum(row)) for row in rows}
            ordered = [merged[row_key] for row_key in sorted(merged)]
        except (KeyError, TypeError) as error:  # a field is missing, or holds another kind of value
            raise BadFile(f"{path} is damaged ({error}): move it away") from None
        whole = {"step": step, "weights": weights, "results": [row for row, _ in ordered]}
        whole["checksums"] = [checksum for _, checksum in ordered]
        text = to_json(whole, where=path, indent=2)
        with written_whole(path) as partial:
            partial.write_bytes(to_bytes(text + "\n"))
        return [row for row, _ in ordered]


def _checksum(row: Row) -> str:
    return hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=8).hexdigest()


def read_results(folder: Path, weights: Mapping[int, str] | None = None) -> list[Result]:
    """Return for each task and protocol the results of the newest checkpoint that has any; see `read_steps`."""
    return newest(read_steps(folder, weights))


def newest(by_step: Mapping[int, Sequence[Result]]) -> list[Result]:
    """Return for each task and protocol the results of the last step that has any."""
    last = {(result.task, result.protocol): step for step in sorted(by_step) for result in by_step[step]}
    return [
        result for step in sorted(by_step) for result in by_step[step] if last[result.task, result.protocol] == step
    ]


def read_steps(folder: Path, weights: Mapping[int, str] | None = None) -> dict[int, list[Result]]:
    """Return all results in the folder by training step; for one metric, K and seed those on most questions.

    `weights` says whose checkpoints there are, by step: results of other weights at that step, or at a later one than
    all, are of a former training and left out. Where two sets of as many questions were asked both are there; former
    results, which carry no digest of their questions, count as of the one set of their source and number that there is.
    """
    by_step: dict[int, list[Stored]] = {}
    for stored in _all_stored(folder):
        by_step.setdefault(stored.step, []).append(stored)
    results_of: dict[int, list[Result]] = {}
    n_others = n_without = 0
    for step, files in sorted(by_step.items()):
        wanted = (weights or {}).get(step, files[-1].weights)
        known = step <= max(weights, default=step) if weights else True
        own = [stored for stored in files if stored.weights == wanted and known]
        n_others += len(files) - len(own)
        if results := [result for stored in own for result in _results_of(stored)]:
            results_of[step] = results
    digests = _only_digests(itertools.chain.from_iterable(results_of.values()))
    for step, results in results_of.items():
        joined = [
            replace(result, questions=digests[_of_unknown_set(result)])
            for result in results
            if not result.questions and _of_unknown_set(result) in digests
        ]
        others = [result for result in results if result.questions or _of_unknown_set(result) not in digests]
        results_of[step] = on_most_questions([*joined, *others])  # of the same measurement the last counts
        n_without += sum(result is other for result in results_of[step] for other in joined)
    if n_without:
        note(
            f"{folder}: {n_without} results of an older version have no digest of their questions; they are shown with "
            "results of the same source and number of questions"
        )
    if n_others:
        n_files = sum(map(len, by_step.values()))
        note(f"{folder}: {n_others} of {n_files} files of results are not shown: the run no longer holds their weights")
    return results_of


def _results_of(stored: Stored) -> list[Result]:
    """Return the results of a file; if one of them cannot be read, none, with a note."""
    try:
        return stored.results()
    except (BadValue, NotFinite) as error:
        note_left_out(stored.path, error)
        return []


def _of_unknown_set(result: Result) -> tuple[str, str, str, int]:
    """Return what a result says of its set of questions, their digest aside."""
    return result.task, result.protocol, result.source, result.n_asked


def _only_digests(results: Iterable[Result]) -> dict[tuple[str, str, str, int], str]:
    """Return the digest of questions by task, protocol, source and number, where there is only one such set."""
    digests: dict[tuple[str, str, str, int], set[str]] = {}
    for result in results:
        if result.questions:
            digests.setdefault(_of_unknown_set(result), set()).add(result.questions)
    return {key: next(iter(several)) for key, several in digests.items() if len(several) == 1}


def on_most_questions(results: Iterable[Result]) -> list[Result]:
    """Return for each task, protocol, metric, K and seed the result on most questions; if several have as many, all.

    The last of the same measurement counts; one whose questions are not known gives way to one whose are.
    """
    groups: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        key = (result.task, result.protocol, result.metric, result.shots, result.seed)
        groups.setdefault(key, {})[result.question_set] = result
    chosen: list[Result] = []
    for group in groups.values():
        most = max(result.n_asked for result in group.values())
        largest = [result for result in group.values() if result.n_asked == most]
        chosen += [result for result in largest if result.questions] or largest
    return chosen


def _all_stored(folder: Path) -> list[Stored]:
    """Return every file of results in a run's folder that can be read, the last written last."""
    own = [path for path in folder.glob("step-*") if OF_STEP.fullmatch(path.name)]
    places = [folder, *(folder / FORMER).glob("step-*"), *own]
    paths = [path for place in places for path in place.glob("*.json")]
    files = []
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path)):
        try:
            files.append(read_stored(path))
        except BadFile as error:
            note_left_out(path, error)
    return files


def read_stored(path: Path) -> Stored:
    """Return one file of results as plain values; anything else raises `BadFile`."""
    stored = read_json(path)
    if not isinstance(stored, dict) or not isinstance(stored.get("results"), list):
        raise BadFile(f"{path} holds no results of fewshot evaluate: move it away")
    rows, checksums = stored["results"], stored.get("checksums")
    step, weights = stored.get("step", 0), stored.get("weights", "")
    checksums = [""] * len(rows) if checksums is None else checksums
    if (
        not isinstance(step, int)
        or not isinstance(weights, str)
        or not isinstance(checksums, list)
        or len(checksums) != len(rows)
        or not all(isinstance(row, dict) for row in rows)
    ):
        raise BadFile(f"{path} is damaged: its step, weights, results and checksums do not fit together; move it away")
    return Stored(path, step, weights, tuple(rows), tuple(map(str, checksums)))
