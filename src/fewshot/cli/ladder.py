"""A ladder of runs: trained one after the other, predicted before the last, compared and drawn after it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.base.dist import finish, from_first, rank
from fewshot.base.log import note
from fewshot.cli.watching import sampler, with_tracker

if TYPE_CHECKING:
    from fewshot.evaluate.reports.ladder import Band
    from fewshot.train.ladder.law import Expected
    from fewshot.train.ladder.prediction import Prediction
    from fewshot.train.ladder.series import Ladder, Measured


def train_ladder(ladder: Ladder, args: argparse.Namespace, overrides: Mapping[str, Any] | None = None) -> int:
    """Train what is not trained yet, and print where prediction and result are; return the exit code."""
    from fewshot.cli.show import followed, print_outcome
    from fewshot.train.ladder.prediction import predict
    from fewshot.train.ladder.series import measure
    from fewshot.train.run import resume

    for path in ladder.runs:
        if path == ladder.runs[-1]:
            _say_prediction(ladder, from_first(lambda: predict(ladder)))
        if from_first(lambda path=path: measure(path).is_complete):  # type: ignore[misc]
            continue
        if rank() == 0:
            note(f"ladder: run {path.name}, in {path}")
        reports = resume(path, say=note, overrides=overrides, watch=sampler(path, args))
        last = followed(with_tracker(reports, path, args))
        if last is not None and last.step < last.n_steps:
            return print_outcome(ladder.folder, last)
    finish()
    if rank() == 0:
        print(report_ladder(ladder))
    return 0


def _say_prediction(ladder: Ladder, prediction: Prediction) -> None:
    from fewshot.base.files import sha256_file

    if rank() == 0:
        note(
            f"ladder: {prediction.run} will reach {_in_words(prediction.loss)}; written at {prediction.written} to "
            f"{ladder.prediction} (sha256 {sha256_file(ladder.prediction)})"
        )


def _in_words(expected: Expected) -> str:
    return f"{expected.value:.4f} nats/token (95%: {expected.low:.4f} to {expected.high:.4f})"


def report_ladder(ladder: Ladder, path: Path | None = None) -> Path:
    """Print how the prediction fared, write the page of a ladder and return its path."""
    from fewshot.base.errors import check
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.evaluate.reports.ladder import Curve, write_ladder
    from fewshot.train.ladder.prediction import compare, read_prediction
    from fewshot.train.ladder.series import measure

    path = path or RunFolder(ladder.folder).report
    check(
        ladder.prediction.exists(), f"{ladder.folder} has no prediction yet; go on with: fewshot resume {ladder.folder}"
    )
    prediction, runs = read_prediction(ladder), [measure(run) for run in ladder.runs]
    largest = runs[-1]
    rows = [("predicted before it began", _in_words(prediction.loss)), ("written", prediction.written)]
    if largest.is_complete:
        outcome = compare(prediction, largest)
        rows += [
            ("measured", f"{outcome.loss:.4f} nats/token, {'inside' if outcome.is_inside else 'outside'}"),
            ("error", f"{outcome.error:+.2%}, or {outcome.gap_share:.2f} of the distance to the next smaller size"),
            ("largest error on its curve", f"{outcome.worst_on_curve:.2%} after the warm-up"),
        ]
        for name, text in rows:
            note(f"ladder: {name}: {text}")
    law = prediction.of_compute
    compute = [run.compute(run.n_tokens) for run in runs]
    line = Curve(x=compute, y=[law.expected(x).value for x in compute])
    label = f"L = {law.floor:.2f} + {law.factor:.3g} C^{law.exponent:.3f}, fitted to the smaller sizes"
    write_ladder(
        path,
        title=f"fewshot: {ladder.folder.resolve().name}",
        summary=rows,
        sizes=[_row(run) for run in runs],
        over_compute={_name(run): Curve(x=[run.compute(n) for n in run.tokens], y=run.losses) for run in runs},
        law=(label, line),
        expected=_band([compute[-1]], [prediction.loss]),
        expected_curve=_band([share * largest.n_tokens for share in prediction.shares], prediction.curve),
        measured_curve=Curve(x=largest.tokens, y=largest.losses),
    )
    return path


def _band(x: Sequence[float], points: Sequence[Expected]) -> Band:
    from fewshot.evaluate.reports.ladder import Band

    values, low, high = ([getattr(point, name) for point in points] for name in ("value", "low", "high"))
    return Band(x=x, y=values, low=low, high=high)


def _name(run: Measured) -> str:
    return f"{run.name}, {run.n_parameters:,} parameters"


def _row(run: Measured) -> tuple[str, ...]:
    loss = f"{run.losses[-1]:.4f}" if run.losses else ""
    return (
        run.name,
        f"{run.n_parameters:,}",
        f"{run.n_block_parameters:,}",
        f"{run.n_tokens:,}",
        f"{run.compute(run.n_tokens):.3g}",
        loss if run.is_complete else f"{loss} so far" if loss else "",
        f"{run.seconds:,.0f} s",
    )
