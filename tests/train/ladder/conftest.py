"""A ladder of four sizes that takes a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewshot.train.ladder.series import Ladder, make_ladder
from fewshot.train.run import resume


@pytest.fixture(scope="session")
def ladder_given(tiny: Any) -> dict[str, Any]:
    """The configuration of the largest run: 40 steps of 8 rows."""
    schedule = {"n_tokens": 40 * 128, "batch_tokens": 128, "batch_start_tokens": 128, "decay_tokens": 40 * 128}
    return tiny(model={"d_model": 32, "n_heads": 2}, schedule=schedule, loop={"checkpoint_every": 20})


@pytest.fixture(scope="session")
def train_run() -> Callable[[Path], None]:
    """Trains a run to its end."""

    def train(run: Path) -> None:
        for _ in resume(run, say=lambda line: None):
            pass

    return train


@pytest.fixture
def new_ladder(tmp_path: Path, ladder_given: dict[str, Any]) -> Ladder:
    """A ladder that is prepared, and not trained."""
    return make_ladder(ladder_given, tmp_path / "ladder", n_sizes=4, say=lambda line: None)


@pytest.fixture
def smaller_done(new_ladder: Ladder, train_run: Callable[[Path], None]) -> Ladder:
    """A ladder whose smaller runs are trained."""
    for run in new_ladder.runs[:-1]:
        train_run(run)
    return new_ladder
