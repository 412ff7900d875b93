"""Go on with a run that was stopped, from its newest checkpoint; it ends with the same bits as without the stop."""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot.base.config import from_overrides
from fewshot.base.log import note
from fewshot.cli.train import print_outcome

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folder."""
    parser.add_argument("folder", type=Path, metavar="RUN")


def run(args: argparse.Namespace) -> int:
    """Resume the run."""
    from fewshot.cli.show import followed
    from fewshot.train.run import resume

    return print_outcome(args.folder, followed(resume(args.folder, say=note, overrides=from_overrides(args.overrides))))
