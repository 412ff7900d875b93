"""Results for tests of reports."""

from __future__ import annotations

from typing import Any

from fewshot.evaluate.result import Result


def make(k: int, value: float | None, **fields: Any) -> Result:
    plain = {
        "task": "novel_symbols",
        "paper_name": "",
        "protocol": "gpt3",
        "metric": "accuracy",
        "share": True,
        "shots": k,
        "shots_used": k,
        "n": 200,
        "n_skipped": 0,
        "value": value,
        "low": None if value is None else value - 0.05,
        "high": None if value is None else value + 0.05,
        "ideal": min(1.0, (k + 1) / 16),
        "chance": 1 / 16,
        "seed": 0,
        "source": "made by rule",
    }
    return Result(**{**plain, **fields})
