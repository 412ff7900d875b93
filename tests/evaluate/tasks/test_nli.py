"""ANLI, read from its rounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.tasks.nli import read_anli


def test_a_label_that_anli_has_not_is_named(tmp_path: Path) -> None:
    row = {"uid": "u", "context": "c", "hypothesis": "h", "label": "x"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadFile, match=r"test\.jsonl line 1: label is .x., must be one of .e., .n., .c."):
        read_anli(DataFile("test.jsonl", DataFolder(tmp_path)), 1, prompt="{question}")
