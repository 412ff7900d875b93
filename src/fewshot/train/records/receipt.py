"""What a run has read, step by step: a line a step in receipt.jsonl, each with the hash of all samples so far.

The hash is a chain over the numbers of the samples (source, row), so a batch that was changed, left out or read twice
changes it from its step on. In: a mixture and steps. Out: lines; `verify` makes them again from the mixture alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from fewshot.base.config import from_plain
from fewshot.base.errors import BadFile, FewshotError
from fewshot.base.files import decode_text, parse_json, read_bytes, written_whole
from fewshot.checkpoint.folder import RunFolder
from fewshot.checkpoint.manifest import read_manifest
from fewshot.dataset.mixture import Mixture
from fewshot.train.config import ScheduleConfig
from fewshot.train.records.metrics import open_lines, write_line
from fewshot.train.schedule import Step, step_after
from fewshot.train.step import Gradient


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One step: what it read, and the figures that it gave to the last bit (float.hex)."""

    step: int
    first_row: int  # of the training mixture
    n_rows: int
    loss: str
    grad_norm: str
    chain: str  # sha256 of all samples of the run so far
    skipped: bool = False  # its batch was not learned from: see guard.py
    n_left_out: int = 0  # rows that the run has left out before it, because it went back


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What `verify` found out about a receipt without a fault."""

    first_step: int
    last_step: int
    n_rows: int
    n_repeated: int  # rows that had been read before: later passes over a source
    n_checkpoints: int  # that carry the same hash
    n_skipped: int  # steps whose batch was not learned from
    n_left_out: int  # rows that no step has read, because training went back and on behind them


def first_link(mixture: Mixture) -> str:
    """Return what the chain of a run begins with: the sources' sizes, shares and seed."""
    sizes = [(source.n_rows, source.n_ctx) for source in mixture.sources]
    return hashlib.sha256(repr((sizes, mixture.slots, mixture.seed)).encode()).hexdigest()


def next_link(chain: str, mixture: Mixture, step: Step) -> tuple[str, np.ndarray]:
    """Return the chain after a step, and the source of each of its rows."""
    sources, rows = mixture.locate(np.arange(step.first_row, step.end_row))
    samples = np.stack([sources, rows]).astype("<i8").tobytes()
    return hashlib.sha256(f"{chain} {step.number}\n".encode() + samples).hexdigest(), sources


class Receipt:
    """Adds a line a step to a run's receipt; of several processes the first one's lines are written."""

    def __init__(self, run: RunFolder, mixture: Mixture, chain: str | None = None) -> None:
        self.chain = first_link(mixture) if chain is None else chain
        self._mixture = mixture
        self._file = open_lines(run.receipt)

    def add(self, step: Step, gradient: Gradient, *, skipped: bool, n_left_out: int) -> None:
        """Write what a step has read and found, and whether it was skipped; see `Entry`."""
        self.chain, _ = next_link(self.chain, self._mixture, step)
        entry = Entry(
            step=step.number,
            first_row=step.first_row,
            n_rows=step.n_rows,
            loss=gradient.loss.hex(),
            grad_norm=gradient.norm.hex(),
            chain=self.chain,
            skipped=skipped,
            n_left_out=n_left_out,
        )
        write_line(entry, self._file)

    def __enter__(self) -> Receipt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def read_receipt(path: Path) -> list[Entry]:
    """Return the entries of a receipt.jsonl; a last line that was cut by a kill is left out.

    Another line that is none raises `BadFile` with its number.
    """
    return [entry for entry, _ in _lines(path)]


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of later steps, which will be done again."""
    kept = b"".join(line for entry, line in _lines(path) if entry.step <= step)
    if path.exists() and kept != read_bytes(path):
        with written_whole(path) as partial:
            partial.write_bytes(kept)


def verify(run: RunFolder, mixture: Mixture, schedule: ScheduleConfig) -> Verified:
    """Compare a run's receipt with what its steps had to read, and with the hashes in its checkpoints.

    Nothing is trained. Raises `BadFile` with the first step that differs.
    """
    entries, n_ctx = read_receipt(run.receipt), mixture.sources[0].n_ctx
    if not entries:
        raise BadFile(f"{run.receipt} has no lines: nothing was read yet, or an older version trained the run")
    counts = np.zeros(len(mixture.sources), dtype=np.int64)
    number, n_rows, chain = 0, 0, first_link(mixture)
    if entries[0].step > 1:  # an older version began the run
        number, n_rows, chain = entries[0].step - 1, entries[0].first_row - entries[0].n_left_out, ""
    chains, left_out = {}, 0
    for entry in entries:
        step = step_after(schedule, n_steps=number, n_rows=n_rows, n_ctx=n_ctx, n_left_out=entry.n_left_out)
        where = f"{run.receipt}: step {step.number:,}"
        if entry.n_left_out < left_out:
            raise BadFile(f"{where} has {entry.n_left_out:,} rows left out, and the one before it {left_out:,}")
        if entry.step != step.number:
            raise BadFile(f"{where} is missing: after {number:,} comes {entry.step:,}")
        if (entry.first_row, entry.n_rows) != (step.first_row, step.n_rows):
            due = _rows(step.first_row, step.n_rows)
            raise BadFile(f"{where} read {_rows(entry.first_row, entry.n_rows)}, but its batch is {due}")
        link, sources = next_link(chain, mixture, step)
        if chain and link != entry.chain:
            raise BadFile(f"{where} read other samples than those of its batch")
        counts += np.bincount(sources, minlength=len(counts))
        chains[entry.step] = chain = entry.chain
        number, n_rows, left_out = step.number, n_rows + step.n_rows, entry.n_left_out
    repeated = sum(max(0, int(n) - source.n_rows) for n, source in zip(counts, mixture.sources, strict=True))
    return Verified(
        first_step=entries[0].step,
        last_step=number,
        n_rows=int(counts.sum()),
        n_repeated=repeated,
        n_checkpoints=sum(_agrees(folder, chains, run.receipt) for folder in run.checkpoint_folders()),
        n_skipped=sum(entry.skipped for entry in entries),
        n_left_out=left_out,
    )


def _agrees(folder: Path, chains: dict[int, str], receipt: Path) -> bool:
    """Return whether a checkpoint carries the hash of the receipt; raise `BadFile` if it is another.

    What was saved before the first line cannot be told.
    """
    checkpoint = read_manifest(folder)
    chain = checkpoint.counters.get("chain")
    if chain is None or checkpoint.step < min(chains):
        return False
    if chains.get(checkpoint.step) != chain:
        raise BadFile(f"{folder} was trained on other samples than {receipt} says up to step {checkpoint.step:,}")
    return True


def _rows(first: int, n: int) -> str:
    return f"rows {first:,} to {first + n - 1:,}"


def _lines(path: Path) -> Iterator[tuple[Entry, bytes]]:
    lines = read_bytes(path).splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, start=1):
        where = f"{path} line {number}"
        try:
            yield from_plain(Entry, parse_json(decode_text(line, where), where), where=where), line.rstrip() + b"\n"
        except FewshotError as error:
            if number < len(lines) or line.endswith(b"\n"):
                raise BadFile(f"{error}; it is not a line of a receipt") from None
