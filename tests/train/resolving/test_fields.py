"""The page of all fields is the code's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fewshot.cli.main import main
from fewshot.train.resolving.fields import SECTIONS, page


def test_the_page_in_docs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--fields"]) == 0
    printed = capsys.readouterr().out
    assert printed == page()
    stored = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert stored == printed, "write it again: fewshot train --fields > docs/configuration.md"


def test_every_field_has_a_row_with_its_default_and_its_unit() -> None:
    rows = page().splitlines()
    for kind in SECTIONS.values():
        for field in dataclasses.fields(kind):
            assert any(row.startswith(f"| `{field.name}` | ") for row in rows)
    assert "| `beta2` | `0.95` | number: of AdamW and NorMuon: decay of the mean squared gradient |" in rows
    assert "| `warmup_tokens` | chosen | whole number: tokens over which the learning rate grows linearly |" in rows
    assert "| `n_layers` | needed | whole number: transformer blocks |" in rows
    tokenizer = next(row for row in rows if row.startswith("| `tokenizer` | `bpe` | text: "))
    assert "the path" in tokenizer  # the comment above the field
