"""Evaluations of a small task into a folder of results."""

from __future__ import annotations

from pathlib import Path

import pytest
from opposites import opposites

from fewshot.evaluate.run import evaluate
from fewshot.evaluate.store.results import ResultsStore
from fewshot.evaluate.task import Task


@pytest.fixture
def measured(tmp_path, copier, small_tokenizer):
    """A function that evaluates into one folder, as a command would."""
    tokenizer = small_tokenizer()
    lm = copier(tokenizer.n_vocab, 200, 1)

    def evaluated(
        where: Path = tmp_path / "evaluations",
        task: Task | None = None,
        *,
        weights: str = "w1",
        step: int = 10,
        name: str = "",
        keep_results: bool = True,
        **changed,
    ):
        settings = {"shots": (0, 1), "limit": 4, "seed": 0, "batch_size": 4, **changed}
        task = task or opposites()
        store = ResultsStore(root=where, weights=weights, step=step, name=name)
        if keep_results:
            store.check(task)
        answered = evaluate(lm, tokenizer, task, store=store.answers(task), **settings)
        if keep_results:
            store.add(task, answered)
        return answered

    return evaluated
