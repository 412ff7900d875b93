"""Continue a run that was stopped, from its newest checkpoint; the result has the same bits as without the stop.

fewshot resume RUN                                 a run, or a ladder of them
fewshot resume RUN --loop.checkpoint_every 100     these may change: the intervals, keep_checkpoints, recompute and
                                                   spike_factor of loop; kernel, precision and compile too, in the
                                                   last bits
torchrun --nproc-per-node 4 -m fewshot -- resume RUN --parallel.tp 2     in any layout, whatever it was begun in
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot.base.config import from_overrides
from fewshot.base.errors import check
from fewshot.base.log import note
from fewshot.cli.watching import add_watching, check_watching, sampler, with_tracker

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of the run")
    parser.add_argument(
        "--verify", action="store_true", help="check that every step so far has read its own batch, and train nothing"
    )
    add_watching(parser)


def run(args: argparse.Namespace) -> int:
    """Resume the run, or check what it has read."""
    if args.verify:
        return _verify(args)
    from fewshot.cli.show import followed, print_outcome
    from fewshot.train.ladder.series import is_ladder, open_ladder
    from fewshot.train.run import resume

    check_watching(args, is_ladder=is_ladder(args.folder))
    overrides = from_overrides(args.overrides)
    if is_ladder(args.folder):
        from fewshot.cli.ladder import train_ladder

        return train_ladder(open_ladder(args.folder), args, overrides)
    reports = resume(args.folder, say=note, overrides=overrides, watch=sampler(args.folder, args))
    return print_outcome(args.folder, followed(with_tracker(reports, args.folder, args)), as_json=args.json)


def _verify(args: argparse.Namespace) -> int:
    from fewshot.train.records.replay import verify_run

    check(not args.overrides, "--verify trains nothing: give it no --section.field")
    check(not args.json, "--verify prints one line: leave out --json")
    receipt = verify_run(args.folder)
    skipped = f"; {receipt.n_skipped:,} steps were skipped" if receipt.n_skipped else ""
    skipped += f"; {receipt.n_left_out:,} rows were left out, to go on behind a fault" if receipt.n_left_out else ""
    print(
        f"steps {receipt.first_step:,} to {receipt.last_step:,} have read {receipt.n_rows:,} rows, each its own batch; "
        f"{receipt.n_repeated:,} of them in a later pass over the text; checkpoints that agree: {receipt.n_checkpoints}"
        f"{skipped}"
    )
    return 0
