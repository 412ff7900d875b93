from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from fewshot.bench.timing import in_turns


def test_the_median_of_rounds_in_turns_counts_all_but_the_first(
    monkeypatch: pytest.MonkeyPatch, set_in_module: Callable[[object, str, object], None]
) -> None:
    now, calls = [0.0], []
    durations = {"a": iter([90.0, 1.0, 5.0, 2.0]), "b": iter([80.0, 4.0, 4.0, 30.0])}
    set_in_module(in_turns, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(name: str) -> None:
        calls.append(name)
        now[0] += next(durations[name])

    assert in_turns({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=3) == {"a": 2.0, "b": 4.0}
    assert "".join(calls) == "ab" * 4
