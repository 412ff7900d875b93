"""Results on disk, and beside them the answers that they were taken from.

In: a folder for all results, such as RUN/evaluations. Out: in it a folder for each model that was evaluated,

step-00002000/                     a checkpoint's
    TASK.json                      results; TASK.lm-eval.json under the harness's protocol
    answers/TASK.PROTOCOL.jsonl    in the order in which they came
    contamination/TASK.json
step-00002000-1a2b3c4d/            other weights of that step: of a training that was done anew in the same folder
NAME-1a2b3c4d/                     a model of another program, by a digest of its weights

A measurement is known by its metric, K, seed and set of questions, and is replaced by the same one alone. A file that
cannot be read is named and left out, and only writing that file is refused. `read.py` reads the folder for reports.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewshot.base.dist import rank
from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import read_json
from fewshot.base.lock import hold
from fewshot.base.log import note
from fewshot.evaluate.protocol import GPT3
from fewshot.evaluate.result import TaskAnswers
from fewshot.evaluate.store.answers import WAIT_SECONDS, WRITING, AnswerFile, begin, weights_of_answers
from fewshot.evaluate.store.result_file import JsonRow, merge_rows, note_left_out, read_result_file
from fewshot.evaluate.task import Task

OF_STEP = re.compile(r"step-\d+(-[0-9a-f]{8})?")


@dataclass(frozen=True, kw_only=True)
class ResultsStore:
    """The stored results and answers of one model: in `root`, the folder for all models' results, a folder of its own.

    `weights` tells one model from another; `name` is of one that is no checkpoint of ours.
    """

    root: Path
    weights: str
    step: int
    name: str = ""
    _chosen: dict[str, Path] = field(default_factory=dict, compare=False, repr=False)  # by file of answers

    def folder(self) -> Path:
        """Return the model's folder; see `folder_of`."""
        return folder_of(self.root, self.weights, step=self.step, name=self.name)

    def check(self, task: Task) -> None:
        """Raise BadFile where the task's file of results is damaged, so that it is refused before anything is asked."""
        path = _file_of(self._folder_for(task), task)
        if path.is_file():
            read_result_file(path)

    def answers(self, task: Task) -> AnswerFile:
        """Return the task's answers as a store for `evaluate`; the file is made if there is none."""
        return AnswerFile(self._folder_for(task) / "answers" / _answers_name(task), self.weights, lock=self.root)

    def add(self, task: Task, answers: Sequence[TaskAnswers]) -> None:
        """Put the results of the answers into the task's file; all others stay in it.

        Under torchrun the first process does it for all.
        """
        if rank() == 0:
            rows = [result.to_json() for of_one_k in answers for result in of_one_k.results()]
            path = _file_of(self._folder_for(task), task)
            merge_rows(path, rows, _result_key, step=self.step, weights=self.weights, lock=self.root)

    def _folder_for(self, task: Task) -> Path:
        """Return the model's folder, chosen once for a task, so that its results are stored beside its answers."""
        file = _answers_name(task)
        if file not in self._chosen:
            self._chosen[file] = folder_of(self.root, self.weights, step=self.step, name=self.name, begun=file)
        return self._chosen[file]


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


def _answers_name(task: Task) -> str:
    return f"{task.name}.{task.protocol.name}.jsonl"


def _file_of(folder: Path, task: Task) -> Path:
    return folder / f"{task.name}{'' if task.protocol is GPT3 else f'.{task.protocol.name}'}.json"


def _result_key(row: JsonRow) -> tuple[Any, ...]:
    """Return what tells one measurement of a task from another."""
    n_asked = row["n"] + row["n_skipped"]
    return row["metric"], row["shots"], row["seed"], n_asked, row.get("questions", ""), row["source"]
