"""metrics.jsonl: one line of figures for a step, read back strictly; only a last line that was cut is left out."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fewshot.base.config import from_plain
from fewshot.base.dist import rank
from fewshot.base.errors import BadFile, FewshotError
from fewshot.base.files import decode_text, parse_json, read_bytes, to_json, written_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """The figures of one step; losses in nats a token."""

    step: int  # steps done
    n_steps: int  # of the whole run
    tokens: int  # seen so far
    loss: float | None  # None: not a finite number
    lr_fraction: float
    grad_norm: float | None  # before clipping; None: not a finite number
    seconds: float  # of training so far, validation and checkpoints left out
    tokens_per_second: float
    val_loss: float | None = None
    val_bits_per_byte: float | None = None
    grad_noise: float | None = None  # of a token's gradient, and the square of the true one: see noise.py
    grad_signal: float | None = None
    event: str | None = None  # what the guard did: why the batch was skipped, or where training went back from


def finite(value: float) -> float | None:
    """Return the value, or None for a NaN or an infinity, which JSON has not."""
    return value if math.isfinite(value) else None


class MetricsFile:
    """The content of a metrics.jsonl; without the file there are no rows.

    A last line that was cut by a kill is left out. Any other line that `fewshot train` did not write raises `BadFile`
    with its number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = read_bytes(path) if path.exists() else None
        self._rows = _parse_lines(self._content or b"", path)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The figures of each line, as plain values."""
        return [row for row, _ in self._rows]

    def keep_until(self, step: int) -> None:
        """Drop the lines of later steps, which will be done again, and a last line that was cut; others stay as is."""
        lines = b"".join(line for row, line in self._rows if row["step"] <= step)
        if self._content is None or lines != self._content:
            with written_whole(self.path) as partial:
                partial.write_bytes(lines)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl as `MetricsFile` reads them."""
    return MetricsFile(path).rows


def open_lines(path: Path) -> TextIO:
    """Open a file of JSON lines to add some; of several processes only the first one's lines are written."""
    return path.open("a", encoding="utf-8") if rank() == 0 else Path(os.devnull).open("w", encoding="utf-8")


def write_line(line: DataclassInstance, file: TextIO) -> None:
    """Append a line to an open file of JSON lines and flush it."""
    file.write(to_json(asdict(line), where=Path(file.name).name) + "\n")
    file.flush()


def _parse_lines(content: bytes, path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Return each row with the bytes of its line."""
    rows = []
    lines = content.splitlines(keepends=True)
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
        raise BadFile(f"{error}; it is not a line of fewshot train: delete the line, or move the file away") from None
    return row
