"""SAT analogies, read from Turney's file."""

from __future__ import annotations

from pathlib import Path

from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.tasks.analogies import read_sat_analogies

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"


def test_the_papers_own_analogy_is_read_as_it_prints_it() -> None:
    first, second, *_ = read_sat_analogies(DataFile("SAT-package-V3.txt", DataFolder(SAMPLES / "sat_analogies")))
    assert first.context == "lull is to trust as"
    assert first.completions[first.gold] == " cajole is to compliance"
    assert len(first.completions) == 5
    assert len(second.completions) == 4  # the fifth is the file's "no choice"
    assert second.demonstration == "puppy is to dog as calf is to cow"
