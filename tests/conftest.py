"""Fixtures that all floors share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.evaluate.data.files import DataFolder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data beside the repository; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test data is not on this machine (looked for {folder})")
    return folder


@pytest.fixture(scope="session")
def eval_data(shared_data: Path) -> DataFolder:
    """The evaluation sets in it."""
    return DataFolder(shared_data / "eval")
