"""Print stored results of `fewshot bench attention` as the Markdown tables of docs/sparsity.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fewshot.base.errors import BadFile

Row = Mapping[str, Any]


def attention_tables(result: Mapping[str, Any]) -> str:
    """Return a table for each part that `result` holds, under a line that names the machine."""
    try:
        return "\n".join(_lines(result)) + "\n"
    except (KeyError, TypeError):
        raise BadFile("this is no result of fewshot bench attention: give the FILE that its --json wrote") from None


def _lines(result: Mapping[str, Any]) -> list[str]:
    machine = result["machine"]
    gpu = "" if machine["gpu"] == "none" else f", {machine['gpu']}"
    lines = [
        f"Measured on {machine['cores']} cores of an {machine['processor']}{gpu}, {machine['threads']} threads, "
        f"Python {machine['python']}, torch {machine['torch']}."
    ]
    for part, (title, columns) in PARTS.items():
        if rows := result.get(part):
            lines += ["", f"### {title}", "", *_table(columns, rows)]
    return lines


def _table(columns: Mapping[str, Callable[[Row], str]], rows: Iterable[Row]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [
        line(list(columns)),
        line(["---"] * len(columns)),
        *(line([cell(row) for cell in columns.values()]) for row in rows),
    ]


def _slope(row: Row) -> str:
    return f"{row['slope']:.2f}"


def _memory(row: Row) -> str:
    return "not measured" if row["peak_in_qkv"] is None else f"{row['peak_in_qkv']:.2f}"


PARTS: dict[str, tuple[str, dict[str, Callable[[Row], str]]]] = {
    "against_dense": (
        "Against torch's dense causal attention: batch 1, 8 heads of 64, forward and backward",
        {
            "pattern": lambda row: f"`{row['pattern']}`",
            "type": lambda row: row["dtype"],
            "n": lambda row: f"{row['n']:,}",
            "kernel": lambda row: row["kernel"],
            "ms": lambda row: f"{row['milliseconds']:.1f}",
            "torch dense, ms": lambda row: f"{row['dense_milliseconds']:,.0f}",
            "times as fast": lambda row: f"**{row['ratio']:.1f}**",
            "FLOP limit": lambda row: f"{row['flop_limit']:.1f}",
            "share of the limit": lambda row: f"{row['fraction_of_limit']:.2f}",
        },
    ),
    "growth": (
        "Against itself at another length: float32, forward and backward",
        {
            "pattern": lambda row: f"`{row['pattern']}`",
            "from n": lambda row: f"{row['short']:,}",
            "to n": lambda row: f"{row['long']:,}",
            "ms": lambda row: f"{row['short_milliseconds']:.1f}",
            "ms at the longer": lambda row: f"{row['long_milliseconds']:.1f}",
            "ratio": lambda row: f"**{row['ratio']:.2f}**",
            "slope": _slope,
            "peak of extra memory, in bytes of q, k and v": _memory,
        },
    ),
    "peers": (
        "Against what others offer: float32, the same inputs",
        {
            "peer": lambda row: row["peer"],
            "what": lambda row: row["what"],
            "n": lambda row: f"{row['n']:,}",
            "ours, ms": lambda row: f"{row['milliseconds']:.1f}",
            "peer, ms": lambda row: f"{row['peer_milliseconds']:,.1f}",
            "times as fast": lambda row: f"**{row['ratio']:.2f}**",
        },
    ),
    "whole_model": (
        "Whole models: 6 layers, d_model 256, 4 heads, bytes as tokens; forward, backward and AdamW, one row",
        {
            "layers": lambda row: f"`{row['pattern']}`",
            "n_ctx": lambda row: f"{row['n_ctx']:,}",
            "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}",
            "times dense": lambda row: f"**{row['ratio']:.2f}**",
            "times dense by torch's kernel": lambda row: f"{row['ratio_to_torch']:.2f}",
        },
    ),
}
