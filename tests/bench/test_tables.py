from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.cli.main import main


@pytest.mark.parametrize("stored", ["[]", "{}", '{"bench": "attention"}', '{"machine": {"gpu": "none"}}'])
def test_a_file_that_is_no_result_cannot_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: str
) -> None:
    (tmp_path / "r.json").write_text(stored)
    assert main(["bench", "attention", "--show", str(tmp_path / "r.json")]) == 2
    assert "this is no result of fewshot bench attention" in capsys.readouterr().err
