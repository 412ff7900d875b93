"""Compute a step of a run again, and say whether its bits are those of the log. Nothing is written.

fewshot replay RUN --step 1200     from the nearest checkpoint before that step; every step on the way is compared

The same bits need the same machine, versions and number of threads. The exit code is 1 where they differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot.base.log import note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder and the step."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of the run")
    parser.add_argument("--step", type=int, required=True, metavar="N", help="the step to compute again, from 1")


def run(args: argparse.Namespace) -> int:
    """Replay up to the step, and stop at the first that differs."""
    from fewshot.train.records.replay import replay

    n_steps = 0
    for step in replay(args.folder, args.step, say=note):
        n_steps += 1
        if not step.is_same:
            print(
                f"step {step.logged.step:,} differs: loss {step.loss.hex()}, logged {step.logged.loss}; "
                f"gradient norm {step.grad_norm.hex()}, logged {step.logged.grad_norm}"
            )
            return 1
    before = f", and so have the {n_steps - 1:,} replayed before it" if n_steps > 1 else ""
    print(f"step {args.step:,} has the bits of the log{before}")
    return 0
