"""What an evaluation leaves on disk: answers as they come, which make it resumable, and results.

In: a folder, such as RUN/evaluations. It holds TASK.json (TASK.lm-eval.json under the harness's protocol) and
answers/TASK.PROTOCOL.jsonl of the newest checkpoint; steps/step-N/ holds the same of an older one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fewshot.base.dist import n_ranks, rank
from fewshot.base.errors import BadFile
from fewshot.base.files import read_json, read_text, write_json, write_text
from fewshot.base.log import note
from fewshot.evaluate.measure import Answer
from fewshot.evaluate.prompt import Prompt
from fewshot.evaluate.protocol import GPT3
from fewshot.evaluate.reader import Reader
from fewshot.evaluate.run import Answered, Result, evaluate
from fewshot.evaluate.task import Task
from fewshot.tokenizer.vocab import Tokenizer

STEPS = "steps"  # folder of older checkpoints' results
FIELDS = ("text", "logprobs", "n_tokens", "greedy", "unconditional", "shots")


class AnswerFile:
    """Answers on disk by what was asked: JSON lines; the first names the weights that gave them.

    A file of other weights is begun anew; a last line that was cut off while it was written is dropped.
    """

    def __init__(self, path: Path, weights: str) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        header = json.dumps({"weights": weights})
        whole = read_text(path).split("\n")[:-1] if path.is_file() else []
        try:
            if whole and whole[0] == header:
                rows = [json.loads(line) for line in whole[1:]]
                self.known = {row["asked"]: {field: row[field] for field in FIELDS} for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"{path} is damaged ({error}): delete it to begin anew") from None
        write_text(path, "".join(f"{line}\n" for line in [header, *(whole[1:] if self.known else [])]))

    def add(self, task: Task, answers: Sequence[tuple[Prompt, Answer]]) -> None:
        """Store answers; they are on disk when this returns."""
        lines = []
        for prompt, answer in answers:
            row = {"asked": asked(task, prompt), "id": answer.example.id}
            row |= {field: getattr(answer, field) for field in FIELDS}
            self.known[row["asked"]] = row
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())

    def get(self, task: Task, prompt: Prompt) -> Answer | None:
        """The stored answer to the prompt; None where there is none."""
        row = self.known.get(asked(task, prompt))
        if row is None:
            return None
        values: dict[str, Any] = {}
        for name in FIELDS:
            values[name] = tuple(row[name]) if isinstance(row[name], list) else row[name]
        return Answer(example=prompt.example, **values)


def asked(task: Task, prompt: Prompt) -> str:
    """A digest of all that an answer depends on, the weights aside."""
    search = (task.protocol.beams, task.protocol.length_penalty, task.stop, task.max_answer_tokens)
    key = (task.kind, task.answer_context, search if task.kind == "complete" else (), prompt.tokens, prompt.spans)
    return hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()


def evaluate_into(
    folder: Path,
    reader: Reader,
    tokenizer: Tokenizer,
    task: Task,
    *,
    weights: str,
    step: int,
    shots: Sequence[int],
    limit: int,
    seed: int,
    batch_size: int,
    keep_results: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answered]:
    """As `evaluate`, with answers kept in `folder`, and results too unless they are not the task's own.

    `weights` tells one model from another.
    """
    part = f".{rank()}-of-{n_ranks()}" if n_ranks() > 1 else ""
    store = AnswerFile(folder / "answers" / f"{task.name}.{task.protocol.name}{part}.jsonl", weights)
    answered = evaluate(
        reader,
        tokenizer,
        task,
        shots=shots,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        store=store,
        on_progress=on_progress,
    )
    if keep_results and rank() == 0:
        results = [result for one in answered for result in one.results()]
        store_results(folder, task, results, step=step, weights=weights)
    return answered


def store_results(folder: Path, task: Task, results: Sequence[Result], *, step: int, weights: str) -> None:
    """Write the task's file; other shot counts and seeds of the same weights, source and questions stay in it.

    A measurement on fewer questions never replaces one on more: it is printed only, and that is said.
    """
    path = folder / f"{task.name}{'' if task.protocol is GPT3 else f'.{task.protocol.name}'}.json"
    new = [result.to_json() for result in results]
    stored = read_json(path) if path.is_file() else {}
    old = stored.get("results", []) if stored.get("weights") == weights else []
    old = [one for one in old if one["source"] == task.source]
    n_old, n_new = (max((one["n"] + one["n_skipped"] for one in many), default=0) for many in (old, new))
    if n_old > n_new:
        note(f"{path} keeps its results on {n_old:,} questions; these on {n_new:,} are not stored (--limit {n_old})")
        return

    def key(one: dict[str, Any]) -> tuple[str, int, int]:
        return one["metric"], one["shots"], one["seed"]

    measured = {key(one) for one in new}
    kept = [one for one in old if n_old == n_new and key(one) not in measured]
    write_json(path, {"step": step, "weights": weights, "results": sorted([*kept, *new], key=key)})


def read_results(folder: Path) -> list[Result]:
    """All results of the newest checkpoint that each task was measured on, the oldest file first."""
    return [result for _, result in _read_files(folder)]


def read_steps(folder: Path) -> dict[int, list[Result]]:
    """All results in the folder by training step, those of older checkpoints included."""
    older = [found for one in sorted((folder / STEPS).glob("step-*")) for found in _read_files(one)]
    by_step: dict[int, dict[tuple[str, str, str, int, int], Result]] = {}
    for step, one in [*_read_files(folder), *older]:
        key = (one.task, one.protocol, one.metric, one.shots, one.seed)
        by_step.setdefault(step, {}).setdefault(key, one)
    return {step: list(by_step[step].values()) for step in sorted(by_step)}


def _read_files(folder: Path) -> list[tuple[int, Result]]:
    """(step, result) of the files in one folder."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        stored = read_json(path)
        if not isinstance(stored, dict) or not isinstance(stored.get("results"), list):
            raise BadFile(f"{path} holds no results of fewshot evaluate: delete or move it")
        results = [Result.from_json(plain, where=str(path)) for plain in stored["results"]]
        found += [(int(stored.get("step", 0)), result) for result in results]
    return found
