"""metrics.jsonl: what each step came to, a line each, read back strictly; only a last line that was cut is forgiven."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.base.config import from_plain
from fewshot.base.errors import BadFile, FewshotError
from fewshot.base.files import decode_text, parse_json, read_bytes, written_whole

METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one step came to; losses in nats a token."""

    step: int  # steps done
    n_steps: int  # of the whole run
    tokens: int  # seen so far
    loss: float
    lr_fraction: float
    grad_norm: float  # before clipping
    seconds: float  # of training so far, validation and checkpoints left out
    tokens_per_second: float
    val_loss: float | None = None
    val_bits_per_byte: float | None = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl; a last line that was cut by a kill is left out, no file gives no rows.

    Raises `BadFile`, with the number of the line, for one that `fewshot train` did not write.
    """
    return [row for row, _ in _lines(path)]


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of later steps, which will be done again, and a last line that was cut; the others stay as is."""
    kept = b"".join(line for row, line in _lines(path) if row["step"] <= step)
    if not path.exists() or kept != path.read_bytes():
        with written_whole(path) as partial:
            partial.write_bytes(kept)


def _lines(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Return each row with the bytes of its line."""
    rows = []
    lines = (read_bytes(path) if path.exists() else b"").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append((_row(line, f"{path} line {number}"), line.rstrip(b"\r\n") + b"\n"))
        except BadFile:
            if number < len(lines) or line.endswith(b"\n"):
                raise
    return rows


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = parse_json(decode_text(line, where), where)
        from_plain(StepMetrics, row, where=where)
    except FewshotError as error:
        raise BadFile(f"{error}; no line of fewshot train: delete it, or move the file away") from None
    return row
