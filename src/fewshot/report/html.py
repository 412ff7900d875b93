"""Pages as HTML: look, figures with captions, plain tables. In: text and SVG. Out: a page without script or network.

Knows nothing of results, runs or tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fewshot.base.errors import BadFile
from fewshot.base.files import check_writable, write_text

MARKER = "<!-- a page of fewshot -->"  # in every page: a file that has it may be replaced by a newer page
BEGINNINGS = tuple(
    f'<!doctype html>\n{marker}<html lang="en">\n<head>\n<meta charset="utf-8">\n' for marker in (f"{MARKER}\n", "")
)  # older pages lack it
WIDE_POINTS = 400  # a figure of more is not shrunk to a narrow window, but scrolls

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #667085; --line: #d9dee7; --back: #ffffff; --card: #f6f8fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #98a2b3; --line: #333c4a; --back: #14181f; --card: #1c222c; } }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1.2rem; color: var(--ink); background: var(--back);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; } h3 { font-size: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); }
tr > th:first-child { white-space: nowrap; }
.results td, .results th { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.results :is(td, th):nth-child(-n + 2), .results .name { text-align: left; }
th { color: var(--soft); font-weight: 600; } small, .soft { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--card);
  min-width: 0; overflow-x: auto; }
figure svg { width: 100%; height: auto; } figure svg.wide { min-width: 40rem; }
figcaption { font-size: .9rem; color: var(--soft); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem; overflow-x: auto;
  white-space: pre-wrap; font-size: .85rem; }
pre b { color: #3b82c4; } pre b.wrong { color: #d0584a; }
"""


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page of these parts under its title; raise as `check_page` does."""
    check_page(path)
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    page = (
        f"{BEGINNINGS[0]}<title>{escape(title)}</title>\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    write_text(path, page.encode("utf-8", "replace").decode())  # names of files need not be text


def check_page(path: Path) -> None:
    """Raise `BadFile` if no page can be written to `path`, above all where a file is that fewshot did not write."""
    if path.parent.is_dir():  # else it is made when there is a page to write
        check_writable(path)
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        begins = file.read(200)
    if not begins.startswith(tuple(text.encode() for text in BEGINNINGS)):
        raise BadFile(f"{path} exists and was not written by fewshot: give another --out, or move it away")


def in_figure(caption: str, svg: str) -> str:
    """Return a figure: an SVG element with its caption."""
    points = re.match(r'<svg\b[^>]*\bwidth="([\d.]+)pt"', svg)
    if points and float(points[1]) > WIDE_POINTS:
        svg = svg.replace("<svg ", '<svg class="wide" ', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def side_by_side(figures: Sequence[str]) -> str:
    """Return the figures in a grid; "" if there are none."""
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def plain_table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return a table, the first cell of each row being its name; "" if there are no rows."""
    lines = [
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>" for row in rows
    ]
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    return f'<div class="scroll"><table>{top}{"".join(lines)}</table></div>' if lines else ""
