"""Continue a run that was stopped, from its newest checkpoint; the result has the same bits as without the stop.

fewshot resume RUN
fewshot resume RUN --loop.checkpoint_every 100     these may change: the intervals, keep_checkpoints and recompute of
                                                   loop; kernel, precision and compile too, in the last bits
torchrun --nproc-per-node 4 -m fewshot resume RUN --parallel.tp 2     in any layout, whatever it was begun in
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot.base.config import from_overrides
from fewshot.base.log import note
from fewshot.cli.train import print_outcome

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of the run")


def run(args: argparse.Namespace) -> int:
    """Resume the run."""
    from fewshot.cli.show import followed
    from fewshot.train.run import resume

    return print_outcome(args.folder, followed(resume(args.folder, say=note, overrides=from_overrides(args.overrides))))
