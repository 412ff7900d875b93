"""One file of results, as plain values with a checksum for each. In: a path, and rows. Out: the rows that it holds.

Each write locks the folder and begins with what is in the file by then. A row is replaced by one of the same key alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile
from fewshot.base.files import read_json, to_json, written_whole
from fewshot.base.lock import hold
from fewshot.base.log import note
from fewshot.evaluate.result import Result
from fewshot.evaluate.store.answers import WAIT_SECONDS, WRITING, to_bytes

JsonRow = dict[str, Any]


@dataclass(frozen=True)
class ResultFile:
    """One file of results: plain values, with the checksum that each had when it was written ("" formerly)."""

    path: Path
    step: int
    weights: str
    rows: tuple[JsonRow, ...]
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


def read_result_file(path: Path) -> ResultFile:
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
    return ResultFile(path, step, weights, tuple(rows), tuple(map(str, checksums)))


def merge_rows(
    path: Path,
    rows: Iterable[JsonRow],
    key: Callable[[JsonRow], tuple[Any, ...]],
    *,
    step: int,
    weights: str,
    lock: Path,
) -> list[JsonRow]:
    """Put rows into a file, in place of those of the same key alone; return all that it holds then, in order of key."""
    with hold(lock, doing=WRITING, wait_seconds=WAIT_SECONDS):
        stored = read_result_file(path) if path.is_file() else ResultFile(path, step, weights, (), ())
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


def _checksum(row: JsonRow) -> str:
    return hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=8).hexdigest()


def note_left_out(path: Path, error: Exception) -> None:
    """Note that a file is left out, with the reason and the way out: one damaged file is in the way of no other."""
    reason = str(error).replace(str(path), path.name)
    note(f"{path} cannot be read and is left out: move it away ({reason})")
