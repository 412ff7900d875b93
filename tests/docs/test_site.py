"""docs/ as a site: every page is in it, no link leads nowhere, and no page asks another machine for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import fewshot

ROOT = Path(__file__).parents[2]


class Loaded(HTMLParser):
    """Collects what a browser fetches when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.addresses.append(values.get("href") or "")
        self.addresses.append(values.get("src") or "")


def pages_of(navigation: object) -> list[str]:
    """Return the pages that a navigation names."""
    if isinstance(navigation, str):
        return [navigation]
    inside = navigation.values() if isinstance(navigation, dict) else navigation
    return [page for part in inside for page in pages_of(part)]  # type: ignore[attr-defined]


def test_every_page_is_in_the_navigation_and_every_name_in_the_reference() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(pages_of(settings["nav"])) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    named = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert named == [f"{module}.{name}" for name, module in fewshot.FACE.items()]


def test_the_site_builds_and_fetches_nothing_from_outside(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings_handlers.python")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = sorted((tmp_path / "out" / "site").rglob("*.html"))
    assert len(built) >= len(list((ROOT / "docs").glob("*.md")))
    for page in built:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        assert [address for address in parser.addresses if re.match(r"(\w+:)?//", address)] == [], page
    reference = (tmp_path / "out" / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert "Train a model on a file or folder of text" in reference
