"""docs/bad-days.md names tests that exist, one at least for each number."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bad-days.md").read_text(encoding="utf-8")
NAMED = re.compile(r"(tests/[\w/]+\.py)?::(test_\w+)")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| no.", "| kind |"))]
WITHOUT_TEST = {"N22", "U1"}  # words alone; a rule that was decided and changed nothing


@cache
def source(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_the_tests_of_a_row_exist(row: str) -> None:
    file = None
    for match in NAMED.finditer(row):
        file = match[1] or file
        assert file is not None, f"{match[2]} is in no file"
        assert f"def {match[2]}(" in source(file)
    for name in re.findall(r"tests/[\w/]+\.py", row):
        assert (ROOT / name).is_file()
    assert re.search(r"tests/[\w/]+\.py", row) or row.split("|")[1].strip() in WITHOUT_TEST


def test_no_number_is_left_out() -> None:
    numbers = set(re.findall(r"\b[AFWDSTMUN]\d+", "".join(row.split("|")[1] + row.split("|")[2] for row in ROWS)))
    wanted = {"A": range(1, 12), "W": range(1, 14), "D": range(1, 3), "S": range(1, 2), "N": range(1, 23)}
    wanted |= {"F": {*range(1, 27)} - {9, 22}, "T": {*range(1, 10)} - {8}, "M": range(1, 5), "U": {1, 3, 4, 5}}
    assert {f"{letter}{i}" for letter, ids in wanted.items() for i in ids} <= numbers


def missing(page: str) -> list[str]:
    """Return of all `FILE.py: name, name` in a page those whose file does not hold the name."""
    files = [(path.as_posix(), path.read_text(encoding="utf-8")) for path in (ROOT / "src").rglob("*.py")]
    absent = []
    for file, names in re.findall(r"((?:\w+/)*\w+\.py): `?([A-Za-z_][\w.]*(?:, [A-Za-z_][\w.]*)*)", page):
        code = "".join(text for path, text in files if path.endswith(f"/{file}"))
        parts = [name.split(".")[-1] for name in names.split(", ")]
        absent += [f"{file}: {name}" for name in parts if not re.search(rf"\b{name}\b", code)]
    return absent


def test_what_is_said_to_mend_a_fault_is_where_the_page_says() -> None:
    assert missing("mended in `base/files.py: no_such_function`") == ["base/files.py: no_such_function"]
    assert missing(PAGE) == []
