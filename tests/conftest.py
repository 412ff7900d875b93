"""Fixtures that all floors share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fewshot.evaluate.data.files import DataFolder

# Tests of these folders and files are run with the shapes in the signatures checked at every call (`make test`), but
# for those whose words are here: torch.compile and the checker exclude each other, and some have no tensors or no end.
SHAPES = ("model", "kernels", "generate", "train/test_muon.py", "evaluate/scoring/test_logprobs.py")
UNCHECKED = ("compile", "traced", "triton", "library", "footprint", "exhaustive")

SetInModule = Callable[[object, str, object], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that are run with shapes checked."""
    folder = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(folder).as_posix()
        if name.startswith(SHAPES) and not any(word in f"{name}::{item.name}" for word in UNCHECKED):
            item.add_marker("shapes")


@pytest.fixture
def set_in_module(monkeypatch: pytest.MonkeyPatch) -> SetInModule:
    """Give a name of a module another value until the test ends, such as a limit that a test wants to be small.

    The module is the one that defines the function or class given first: `set_in_module(next_token_loss,
    "CHUNK_LOGITS", 8)`. So a test names what it uses, and stays true where that moves to another file.
    """

    def set_value(of: object, name: str, value: object) -> None:
        module = of if isinstance(of, ModuleType) else sys.modules[str(of.__module__)]
        monkeypatch.setattr(module, name, value)

    return set_value


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
