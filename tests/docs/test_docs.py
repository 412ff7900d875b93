"""The pages of docs/: their Python blocks run and print what they say, their links and file names exist."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

import fewshot
from fewshot.bench.tables import attention_tables
from fewshot.meta.curves import from_json
from fewshot.meta.report import markdown_tables

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = "# >"  # begins a line of a block that holds what the block prints
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TABLES = re.compile(r"<!-- tables: (.+?) -->\n(.*?)<!-- end of tables -->", re.DOTALL)
CODE = re.compile(r"`((?:[\w-]+/)+\w+\.py)(?::([\w.]+))?`")


def blocks(page: Path) -> list[tuple[str, list[str]]]:
    """Code and expected lines of each Python block; blank lines in front make line numbers those of the page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        code = "\n" * text.count("\n", 0, match.start(1)) + match[1]
        expected = [line[len(PRINTED) + 1 :] for line in match[1].splitlines() if line.startswith(PRINTED)]
        found.append((code, expected))
    return found


def place_of(name: str) -> Path | None:
    return next((path for path in (ROOT / "src" / "fewshot" / name, ROOT / name) if path.is_file()), None)


def defines(path: Path, dotted: str) -> bool:
    """Whether a module's top level holds a class, function or value of that name; `Class.name` looks inside a class."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for part in dotted.split("."):
        for node in body:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if getattr(node, "name", None) == part or any(getattr(target, "id", None) == part for target in targets):
                body = getattr(node, "body", [])
                break
        else:
            return False
    return True


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.stem != "tutorial"], ids=lambda page: page.stem
)
def test_python_blocks_print_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tutorial, whose blocks follow one another, has a test of its own."""
    for number, (code, expected) in enumerate(blocks(page)):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == expected


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if ":" not in link and link[0] != "#"]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_and_names_that_are_mentioned_exist(page: Path) -> None:
    wrong = []
    for name, dotted in CODE.findall(page.read_text(encoding="utf-8")):
        path = place_of(name)
        if path is None or (dotted and not defines(path, dotted)):
            wrong.append(f"{name}:{dotted}" if dotted else name)
    assert wrong == []


def test_every_page_is_in_the_index_and_every_floor_has_a_page() -> None:
    index = set(LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in PAGES} - {"README.md"} <= index
    floors = {path.parent.name for path in (ROOT / "src" / "fewshot").glob("*/__init__.py")} - {"demo", "bench"}
    assert {f"{floor}.md" for floor in floors} <= index


def tables_of(names: str) -> str:
    """What a page shows of results in benchmarks/results, named with spaces between."""
    stored = {name: json.loads((ROOT / name).read_text(encoding="utf-8")) for name in names.split()}
    if all("curves" in result for result in stored.values()):
        return markdown_tables([from_json(result, where=name) for name, result in stored.items()])
    (result,) = stored.values()
    return attention_tables(result)


@pytest.mark.parametrize("name", ["sparsity", "two-loops"])
def test_the_tables_of_a_page_are_those_of_the_stored_results(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    found = TABLES.findall(page)
    assert found
    for stored, shown in found:
        assert shown.strip() == tables_of(stored).strip()


def test_the_newest_change_and_the_citation_are_of_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest[1] == fewshot.__version__ == str(cited["version"])
    assert [reference["year"] for reference in cited["references"]] == [2020, 2019, 2017]
