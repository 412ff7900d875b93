"""Answers on disk as they come, which makes an evaluation resumable. In: a file of JSON lines. Out: answers by prompt.

Several processes may write one file: each append holds a lock, and first reads what others have written since.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot.base.errors import BadFile
from fewshot.base.files import parse_json, to_json
from fewshot.base.lock import hold
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.prompt import Prompt
from fewshot.evaluate.task import Task

FIELDS = ("text", "logprobs", "n_tokens", "greedy", "unconditional", "shots")
WRITING = "fewshot evaluate"  # named to whoever waits for the lock
WAIT_SECONDS = 60.0  # for another process's short write


def to_bytes(text: str) -> bytes:
    """Return JSON text as UTF-8; half a surrogate pair, which UTF-8 cannot hold, as JSON's own escape of it."""
    return text.encode("utf-8", "backslashreplace")


class AnswerFile:
    """Answers by their prompts: the file's first line names the weights that gave them, each other line is an answer.

    A last line that was cut off while it was written is dropped; the answers of other weights are never touched.
    """

    def __init__(self, path: Path, weights: str, *, lock: Path | None = None) -> None:
        """Read the file, or begin it; `lock` is the folder that is locked for each write, by default the file's own."""
        self.path, self.weights, self.lock = path, weights, lock or path.parent
        self.known: dict[str, dict[str, Any]] = {}
        self._n_bytes = self._n_lines = 0  # of the file, that are in `known`
        with hold(self.lock, doing=WRITING, wait_seconds=WAIT_SECONDS):
            begin(path, weights)
            self._catch_up()

    def add(self, task: Task, answers: Sequence[tuple[Prompt, Answer]]) -> None:
        """Store answers that no other process has stored; they are on disk when this returns."""
        rows = []
        for prompt, answer in answers:
            row = {"asked": key_of(task, prompt), "id": answer.example.id}
            rows.append(row | {field: getattr(answer, field) for field in FIELDS})
        with hold(self.lock, doing=WRITING, wait_seconds=WAIT_SECONDS):
            begin(self.path, self.weights)  # it may have been deleted in the meantime
            self._catch_up()
            new = [row for row in rows if row["asked"] not in self.known]
            written = to_bytes("".join(f"{to_json(row, where=self.path)}\n" for row in new))
            with self.path.open("ab") as file:
                file.write(written)
                file.flush()
                os.fsync(file.fileno())
            self.known |= {row["asked"]: row for row in new}
            self._n_bytes, self._n_lines = self._n_bytes + len(written), self._n_lines + len(new)

    def _catch_up(self) -> None:
        """Read what was written since the last time, and cut off a line without an end."""
        with self.path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size < self._n_bytes:  # another file by now
                self._n_bytes = self._n_lines = 0
            file.seek(self._n_bytes)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                file.truncate(self._n_bytes + len(whole))
        for line in whole.split(b"\n")[:-1]:
            self._n_lines += 1
            self._take(line)
        self._n_bytes += len(whole)

    def _take(self, line: bytes) -> None:
        try:
            row = parse_json(line.decode("utf-8"), "it")
            if self._n_lines > 1:
                self.known[row["asked"]] = {field: row[field] for field in FIELDS}
            elif row["weights"] != self.weights:
                raise BadFile("it holds answers of other weights")
        except (BadFile, KeyError, TypeError, UnicodeDecodeError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else error
            raise BadFile(
                f"{self.path} is damaged (line {self._n_lines}: {why}): delete it, or that line, to ask again"
            ) from None

    def get(self, task: Task, prompt: Prompt) -> Answer | None:
        """Return the stored answer to the prompt, or None."""
        row = self.known.get(key_of(task, prompt))
        if row is None:
            return None
        values: dict[str, Any] = {}
        for name in FIELDS:
            values[name] = tuple(row[name]) if isinstance(row[name], list) else row[name]
        return Answer(example=prompt.example, **values)


def begin(path: Path, weights: str) -> None:
    """Write the first line of a file that is not there yet, or in which a kill left a part of that line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = to_bytes(to_json({"weights": weights}, where=path) + "\n")
    line = _first_line(path) if path.is_file() else b""
    if line.endswith(b"\n"):
        return
    if not header.startswith(line) and line.strip(b"\0"):
        raise BadFile(f"{path} is damaged (line 1: it does not name the weights): move it away")
    path.write_bytes(header)


def weights_of_answers(path: Path) -> str:
    """Return the weights that gave the answers in a file, or "" where a kill left nothing whole in it."""
    line = _first_line(path)
    header = parse_json(line.decode("utf-8", "replace"), f"{path} line 1") if line.endswith(b"\n") else {}
    return str(header.get("weights", "")) if isinstance(header, dict) else ""


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(4096)


def key_of(task: Task, prompt: Prompt) -> str:
    """Return a digest of all that an answer depends on, the weights aside."""
    search = (task.protocol.beams, task.protocol.length_penalty, task.stop, task.max_answer_tokens)
    key = (task.kind, task.answer_context, search if task.kind == "complete" else (), prompt.tokens, prompt.spans)
    return hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
