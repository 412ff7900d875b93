"""Questions a second against lm-evaluation-harness with its `hf` model: same weights, prompts and log-probabilities.

In: folders of evaluation sets and of GPT-2's vocabulary. The model is GPT-2 small in shape, with random weights: speed
does not depend on them. The harness takes minutes for what we do in seconds, so it answers the first few of the same
questions, half before and half after us.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.bench.harness import harness_answers, library_tokenizer, random_gpt2, write_rows
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.demonstrations import harness_episodes
from fewshot.evaluate.example import DrawEpisodes, Episode, Example
from fewshot.evaluate.models.transformers import TransformersLanguageModel
from fewshot.evaluate.models.transformers_tokenizer import TransformersTokenizer
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task
from fewshot.tokenizer.bpe import load_gpt2

POOL = 300  # examples that demonstrations are drawn from
N_CTX = 2048
REDRAWN_SHARE = 4  # with demonstrations of their own all questions cost the same: so many times fewer are enough


@dataclass(frozen=True)
class Case:
    """One row of the result."""

    task: str
    shots: int
    fixed: bool  # one set of demonstrations for all questions, or a fresh one for each

    @property
    def name(self) -> str:
        """The row's name in the table."""
        return f"{self.task}, {self.shots} shots, {'one fixed set' if self.fixed else 'redrawn'}"


CASES = (
    Case("hellaswag", 10, True),
    Case("hellaswag", 10, False),
    Case("arc_challenge", 25, True),
    Case("arc_challenge", 25, False),
    Case("arithmetic_2d_add", 50, True),
)


def measure(
    data: Path, vocabulary: Path, *, items: int, peer_items: int, cases: Sequence[Case] = CASES,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Return the questions a second of both sides, their ratio, and how far their log-probabilities differ (nats)."""
    gpt2 = load_gpt2(vocabulary)
    model, tokenizer = random_gpt2(gpt2, n_ctx=N_CTX, init=0.05), library_tokenizer(gpt2)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            n = items if case.fixed else max(peer_items, items // REDRAWN_SHARE)
            row = _race(case, model, tokenizer, DataFolder(data), Path(folder), n, peer_items)
            say(
                f"{case.name}: {row['ours_per_second']:.2f} questions/s, lm_eval {row['peer_per_second']:.3f}, "
                f"{row['ratio']:.1f} times as fast; log-probabilities differ by at most {row['largest_difference']:.1e}"
            )
            rows.append(row)
    return {"model": "GPT-2 small in shape, n_ctx 2048, float32", "rows": rows}


def _race(
    case: Case, model: Any, tokenizer: Any, data: DataFolder, folder: Path, items: int, peer_items: int
) -> dict[str, Any]:
    given = make_task(case.task, data=data, protocol=HARNESS)
    examples = [episode.example for episode in given.episodes(items + POOL, 0, 0)]
    evaluated, pool = examples[:items], examples[items:]
    task = dataclasses.replace(given, episodes=_episodes(case, evaluated, pool))
    files = {
        "validation": write_rows(folder / "evaluated.jsonl", [_row(example) for example in evaluated]),
        "train": write_rows(folder / "pool.jsonl", [_row(example) for example in pool]),
    }
    half = max(1, peer_items // 2)
    parts = [range(half), range(half, 2 * half)]
    peer_seconds, differences = [], []
    first = harness_answers(model, tokenizer, _harness_task(case, given, files), shots=case.shots, documents=parts[0])
    lm = TransformersLanguageModel(model)
    started = time.perf_counter()
    (answered,) = evaluate(
        lm, TransformersTokenizer(tokenizer), task, shots=[case.shots], limit=items, seed=0, batch_size=16
    )
    seconds = time.perf_counter() - started
    second = harness_answers(model, tokenizer, _harness_task(case, given, files), shots=case.shots, documents=parts[1])
    for part, (logprobs, part_seconds) in zip(parts, (first, second), strict=True):
        peer_seconds.append(part_seconds)
        if case.fixed or part.start == 0:  # the harness draws in order: from the middle on its redrawn sets are others
            for at, theirs in zip(part, logprobs, strict=True):
                own = answered.answers[at].logprobs
                differences += [abs(a - b) for a, b in zip(own, theirs, strict=True)]
    ours, peer = len(answered.answers) / seconds, 2 * half / sum(peer_seconds)
    return {
        **dataclasses.asdict(case),
        "questions": len(answered.answers),
        "peer_questions": 2 * half,
        "prompt_tokens": statistics.mean(prompt.n_tokens for prompt in answered.prompts),
        "ours_per_second": ours,
        "peer_per_second": peer,
        "ratio": ours / peer,
        "largest_difference": max(differences),
    }


def _episodes(case: Case, evaluated: Sequence[Example], pool: Sequence[Example]) -> DrawEpisodes:
    if not case.fixed:
        return harness_episodes(case.task, evaluated, pool)
    return lambda n, shots, seed: [Episode(example, tuple(pool[:shots])) for example in evaluated[:n]]


def _row(example: Example) -> dict[str, Any]:
    choices = [completion.removeprefix(" ") for completion in example.completions]
    return {"query": example.context, "choices": choices, "gold": example.gold}


def _harness_task(case: Case, task: Task, files: dict[str, Path]) -> dict[str, Any]:
    """Return the harness's configuration of a task that asks the same questions."""
    choosing = task.kind == "choose"
    return {
        "task": case.task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}},
        "output_type": "multiple_choice" if choosing else "loglikelihood",
        "validation_split": "validation",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n" if case.fixed else "default", "split": "train"},
        "doc_to_text": "{{query}}",
        "doc_to_target": "gold" if choosing else "{{' ' + choices[0]}}",
        **({"doc_to_choice": "choices"} if choosing else {"target_delimiter": ""}),
        "metric_list": [{"metric": "acc"}],
    }
