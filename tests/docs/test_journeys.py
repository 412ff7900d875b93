"""The journeys of docs/README.md go along imports that are there."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "fewshot"


def journeys(page: str) -> dict[str, tuple[str, list[str]]]:
    """Return of each journey the file that ties its steps, and the files of its steps in order."""
    section = page.split("## Five journeys\n")[1].split("\n## ")[0]
    parts = re.findall(r"^### (.+?) \(by `(.+?)`\)\n(.*?)(?=^### |\Z)", section, flags=re.M | re.S)
    return {title: (by, re.findall(r"^\d+\. `(.+?)`", steps, flags=re.M)) for title, by, steps in parts}


def imported(file: str) -> set[str]:
    """Return the modules of fewshot that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module(file: str) -> str:
    return "fewshot." + file.removesuffix(".py").replace("/", ".")


def test_there_are_five_of_some_length():
    assert len(journeys(PAGE)) == 5
    assert all(len(steps) >= 6 for _, steps in journeys(PAGE).values())


@pytest.mark.parametrize("title", journeys(PAGE))
def test_no_file_comes_twice_and_neighbours_are_tied(title: str):
    by, steps = journeys(PAGE)[title]
    assert len(steps) == len(set(steps))
    for first, second in pairwise(steps):
        direct = module(second) in imported(first) or module(first) in imported(second)
        assert direct or {module(first), module(second)} <= imported(by) | {module(by)}, f"{first} -> {second}"
