"""What is chosen where nothing is said, and what cannot work."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def test_committed_runs_and_the_demo_resolve_to_what_they_always_did() -> None:
    spec = importlib.util.spec_from_file_location("make_resolved", GOLDEN / "make_resolved.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.resolved() == json.loads((GOLDEN / "resolved.json").read_text())
