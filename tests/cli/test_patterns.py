from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.cli.main import main


def test_patterns_are_shown_as_text_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "alternate(dense, banded(4))"
    assert main(["patterns", "show", text, "--n", "8"]) == 0
    assert "#" in capsys.readouterr().out
    assert main(["patterns", "show", text, "--n", "8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["layers"][1]["mean_keys_per_query"] == (1 + 2 + 3 + 4 * 5) / 8
    assert answer["layers_to_reach_all"] == 1
    assert main(["patterns", "show", text, "--png", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
