"""The tutorial, as the notebook that `make notebook` writes: every cell runs and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
PRINTED = "# > "  # begins a line that holds what a cell prints


def test_every_cell_of_the_notebook_prints_what_the_page_says(tmp_path: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    client = pytest.importorskip("nbclient")
    notebook = jupytext.read(PAGE)
    client.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 7
    for cell in cells:
        said = [line.removeprefix(PRINTED) for line in cell.source.splitlines() if line.startswith(PRINTED)]
        printed = "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")
        assert printed.splitlines() == said, cell.source
