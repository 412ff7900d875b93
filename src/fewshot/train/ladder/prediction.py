"""What the smaller runs of a ladder say of the largest, written and hashed before its first step.

In: a ladder. Out: prediction.json, and how it compares with what came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fewshot.base.config import from_plain, to_plain
from fewshot.base.errors import BadFile, check
from fewshot.base.files import read_json, read_text, sha256_file, write_json, write_text
from fewshot.checkpoint.folder import RunFolder
from fewshot.train.ladder.law import Expected, PowerLaw, fit, floor_of
from fewshot.train.ladder.series import Ladder, Measured, measure
from fewshot.train.ladder.sizes import POINTS
from fewshot.train.records.metrics import read_metrics


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the smaller runs say of the largest; losses in nats a token, with 95% intervals."""

    run: str
    written: str  # UTC
    measured: tuple[Measured, ...]
    of_size: PowerLaw  # the final loss over the blocks' parameters
    of_compute: PowerLaw  # and over PF-days
    loss: Expected  # after the last step
    shares: tuple[float, ...]  # of the run
    curve: tuple[Expected, ...]  # at each of the shares


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a prediction compares with what was measured."""

    loss: float  # measured, in nats a token
    error: float  # of the prediction, as a share of the measured loss
    gap_share: float  # the error as a share of the distance to the next smaller size
    is_inside: bool  # of the interval
    worst_on_curve: float  # error after the warm-up, as a share of the loss


def predict(ladder: Ladder) -> Prediction:
    """Return the prediction of the largest run, which is written now if it is not there yet.

    Raises `BadValue` if a smaller run is not complete or the largest has begun, `BadFile` if what is there is not what
    was written.
    """
    if ladder.prediction.exists():
        return read_prediction(ladder)
    largest = RunFolder(ladder.runs[-1])
    check(
        not read_metrics(largest.metrics) and not largest.checkpoint_folders(),
        f"{largest.path} has begun without a prediction: what is computed now would be none; start a new ladder",
    )
    smaller = [measure(run) for run in ladder.runs[:-1]]
    for run in smaller:
        check(run.is_complete, f"{ladder.folder / run.name} is not complete: fewshot resume {ladder.folder}")
    target = measure(largest.path)
    sizes, losses = [run.n_block_parameters for run in smaller], [run.losses[-1] for run in smaller]
    floor = floor_of(losses, [run.bits_per_byte for run in smaller])
    of_size = fit(sizes, losses, floor=floor)
    shares = tuple(point / POINTS for point in range(1, POINTS + 1))
    prediction = Prediction(
        run=target.name,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        measured=tuple(smaller),
        of_size=of_size,
        of_compute=fit([run.compute(run.n_tokens) for run in smaller], losses, floor=floor),
        loss=of_size.expected(target.n_block_parameters),
        shares=shares,
        curve=tuple(
            fit(sizes, [run.loss_at(share) for run in smaller], floor=floor).expected(target.n_block_parameters)
            for share in shares
        ),
    )
    write_json(ladder.prediction, to_plain(prediction))
    _write_hash(ladder.prediction)
    return prediction


def _hash_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _write_hash(path: Path) -> None:
    write_text(_hash_of(path), f"{sha256_file(path)}  {path.name}\n")


def read_prediction(ladder: Ladder) -> Prediction:
    """Return the prediction that was written before the largest run; one that was changed raises `BadFile`."""
    path = ladder.prediction
    if not _hash_of(path).exists() and not read_metrics(RunFolder(ladder.runs[-1]).metrics):
        _write_hash(path)  # a kill came between the two
    if read_text(_hash_of(path)).split()[:1] != [sha256_file(path)]:
        raise BadFile(f"{path} is not what was written before the run: its sha256 is not that in {_hash_of(path)}")
    return from_plain(Prediction, read_json(path), where=str(path))


def compare(prediction: Prediction, largest: Measured) -> Outcome:
    """Return how the prediction fared; the run is complete."""
    loss, expected = largest.losses[-1], prediction.loss
    gap = abs(prediction.measured[-1].losses[-1] - loss)
    after = [
        largest.loss_at(share) / point.value - 1
        for share, point in zip(prediction.shares, prediction.curve, strict=True)
        if share * largest.n_tokens >= largest.warmup_tokens
    ]
    return Outcome(
        loss=loss,
        error=expected.value / loss - 1,
        gap_share=abs(expected.value - loss) / gap if gap else math.inf,
        is_inside=expected.low <= loss <= expected.high,
        worst_on_curve=max(map(abs, after)),
    )
