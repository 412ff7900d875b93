"""The runs of layout_runs.py, trained once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from layout_runs import CHAIN, CHAINS, LAYOUTS, MATRIX_RUNS, PAIRS, SAVED, TRAINED, Runs, trained


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder that all processes that run these tests have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every run that the default tests look at."""
    folder = shared_folder(tmp_path_factory, "layout_runs")
    return trained(folder, lambda runs: [runs.train(names) for names in TRAINED])


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs of 50 steps of all layouts, optimizers and kinds of output matrix; minutes."""

    def train(runs: Runs) -> None:
        for layout in LAYOUTS:
            runs.train([name for name in MATRIX_RUNS if name.endswith(f"-{layout}")], n_steps=50)

    return trained(shared_folder(tmp_path_factory, "layout_matrix"), train, saved_every=50)


@pytest.fixture(scope="session")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs of 24 steps that went on in each other layout, and through a chain of layouts; minutes."""

    def train(runs: Runs) -> None:
        for layout in SAVED:
            runs.train([f"{kind}-{layout}" for kind in ("tied", "untied")], n_steps=24)
        for layout in SAVED:
            runs.train([name for name in PAIRS if name.endswith(f">{layout}")])
        for n in range(2, len(CHAIN)):
            runs.train([name for name in CHAINS if name.count(">") == n])

    return trained(shared_folder(tmp_path_factory, "layout_resumed"), train)
