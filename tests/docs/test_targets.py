"""The table of docs/exports.md says what the code decides. To make it again: python tests/docs/test_targets.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot.checkpoint.formats.table import targets
from fewshot.model.config import GPTConfig

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"
SHAPE: dict[str, Any] = {"n_layers": 4, "d_model": 48, "n_heads": 4, "n_ctx": 64, "n_vocab": 257}
MODELS: dict[str, dict[str, Any]] = {
    "dense, pre-LN (GPT-2)": {},
    "the same, output matrix of its own": {"tied": False},
    "the same, d_ff other than 4 d_model": {"d_ff": 100},
    "the same, GELU by the error function": {"activation": "gelu"},
    "narrower heads or queries": {"d_head": 10, "d_qk": 5},
    "wider heads": {"d_head": 16},
    "positions by row and column": {"positions": "rows(8)"},
    "dense and banded, one width (GPT-3)": {"pattern": "alternate(dense, banded(8))"},
    "bands of two widths": {"pattern": "alternate(banded(4), banded(8))"},
    "strided, fixed, or heads that differ": {"pattern": "perhead(strided(4), fixed(8, 2))"},
    "dense, post-LN (GPT-1)": {"block": "post-ln"},
    "the same, output matrix of its own ": {"block": "post-ln", "tied": False},
    "Sparse Transformer's block, dense": {"block": "sparse-transformer", "tied": False},
}


def table() -> str:
    """Return the table: a row a model, a column a format."""
    names = list(targets(GPTConfig(**SHAPE)))
    lines = [f"| model | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for model, changed in MODELS.items():
        reasons = targets(GPTConfig(**SHAPE | changed))
        lines.append(f"| {model.strip()} | {' | '.join('yes' if reasons[name] is None else '' for name in names)} |")
    return "\n".join(lines)


def test_the_table_says_what_the_code_decides() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    if "TABLE" in text:
        PAGE.write_text(text.replace("TABLE", table()), encoding="utf-8")
    else:
        first = text.index("| model |")
        PAGE.write_text(text[:first] + table() + text[text.index("\n\n", first) :], encoding="utf-8")
