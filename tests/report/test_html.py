"""A page replaces pages alone."""

from __future__ import annotations

import os
import stat

import pytest

from fewshot.base.errors import BadFile
from fewshot.report.html import MARKER, in_figure, plain_table, side_by_side, write_page


def test_a_page_is_replaced_by_a_page_and_no_other_file_is(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "one", [])
    write_page(path, "two", [])
    assert MARKER in path.read_text()
    assert "<title>two" in path.read_text()


FOREIGN = {
    "a thesis": b"<html><body>my thesis</body></html>",
    "text": b"hello",
    "a binary file": bytes(range(256)),
    "another doctype": b'<!doctype html>\n<html lang="de">\n<head>',
    "a page that quotes the mark": f"<p>{MARKER}</p>".encode(),
    "JSON": b'{"results": []}',
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_others_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "mine.html"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=r"mine\.html exists and was not written by fewshot: give another --out"):
        write_page(path, "title", [])
    assert path.read_bytes() == content


def test_a_new_an_empty_and_a_linked_page_and_one_from_before_the_mark_are_written(tmp_path):
    (tmp_path / "empty.html").touch()
    write_page(tmp_path / "target.html", "old", [])
    (tmp_path / "link.html").symlink_to("target.html")
    page = (tmp_path / "target.html").read_text()
    (tmp_path / "former.html").write_text(page.replace(f"{MARKER}\n", ""))
    for name in ("empty.html", "link.html", "former.html", "folder/new.html"):
        write_page(tmp_path / name, "new", [])
        assert "<title>new" in (tmp_path / name).read_text()
    assert (tmp_path / "link.html").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_nothing_is_made_of_no_rows_and_no_figures():
    assert plain_table([]) == side_by_side([]) == ""


def test_cells_and_captions_are_text():
    assert "<th>&lt;b&gt;</th><td>&amp;</td>" in plain_table([("<b>", "&")])
    assert "<figcaption>&lt;b&gt;</figcaption>" in in_figure("<b>", "<svg></svg>")


@pytest.mark.parametrize(("points", "wide"), [(331, False), (576, True)])
def test_a_wide_figure_keeps_its_width(points, wide):
    assert ('class="wide"' in in_figure("x", f'<svg height="9pt" width="{points}pt"></svg>')) == wide
