"""What a checkpoint holds of a run beside its tensors: how far it has come, what it read, what its guard remembers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fewshot.base.config import from_plain
from fewshot.base.errors import BadValue, DamagedCheckpoint
from fewshot.checkpoint.manifest import Checkpoint
from fewshot.train.records.metrics import StepMetrics


@dataclass(frozen=True, kw_only=True)
class History:
    """What the guard's decisions depend on, so that a resumed run decides as it would have."""

    losses: tuple[float, ...] = ()  # of the last steps that were learned from
    skipped: int = 0  # steps in a row, up to now
    rows_left_out: int = 0  # of the training mixture, by all rewinds
    rewinds: int = 0  # that have not got beyond `furthest` yet
    furthest: int = 0  # the step of the last fault that training went back from


@dataclass(frozen=True, kw_only=True)
class Counters:
    """The plain values of one checkpoint; older versions did not write all."""

    rows: int  # read so far, those left out not counted
    tokens: int = 0  # the same in tokens
    seconds: float  # of training so far
    chain: str | None = None  # the hash of all samples that were read: see receipt.py
    guard: History = History()
    report: StepMetrics | None = None  # the step's line in metrics.jsonl, which is written later

    def plain(self) -> dict[str, Any]:
        """Return them as a manifest holds them."""
        return asdict(self)


def counters_of(checkpoint: Checkpoint) -> Counters:
    """Return the counters of a checkpoint; others than a run's raise `DamagedCheckpoint`."""
    try:
        return from_plain(Counters, checkpoint.counters, where="counters")
    except BadValue as error:
        raise DamagedCheckpoint(f"{checkpoint.path}: {error}") from None
