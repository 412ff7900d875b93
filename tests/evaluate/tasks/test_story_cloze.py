"""StoryCloze, read from its tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.tasks.story_cloze import VALIDATION_FILE, read_story_cloze
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"


def test_stories_are_shown_from_the_validation_set() -> None:
    data = DataFolder(SAMPLES / "story_cloze")
    validation = {one.id for one in read_story_cloze(data.require("story_cloze", VALIDATION_FILE))}
    shown = {
        one.id for episode in make_task("story_cloze", data=data).episodes(9, 5, 0) for one in episode.demonstrations
    }
    assert shown == validation


def test_a_table_whose_quotation_mark_never_closes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('InputStoryid,InputSentence1\n"' + "a story without an end\n" * 9_999)
    with pytest.raises(BadFile, match=r"a\.csv is not a table of comma-separated values: field larger than"):
        read_story_cloze(DataFile("a.csv", DataFolder(tmp_path)))
