"""What is written about a run while it is trained, beside its own files: a tracker's figures, and samples of text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.base.dist import n_ranks
from fewshot.base.errors import FewshotError, check
from fewshot.base.log import note

if TYPE_CHECKING:
    from fewshot.model.gpt import GPT
    from fewshot.train.loop import Watch
    from fewshot.train.records.metrics import StepMetrics


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train` and `resume` that change nothing in the run."""
    parser.add_argument(
        "--json", action="store_true", help="print the last step's figures as JSON at the end (not of a ladder)"
    )
    parser.add_argument("--log", metavar="TRACKER", help="also log to tensorboard, wandb (offline) or trackio, in RUN")
    parser.add_argument(
        "--sample_every", type=int, metavar="N", help="write what the model says every N steps, to samples.jsonl too"
    )
    parser.add_argument(
        "--sample_prompt", default="", metavar="TEXT", help="what the samples go on from (default: a new document)"
    )


def check_watching(args: argparse.Namespace, *, is_ladder: bool) -> None:
    """Raise `BadValue` for options that cannot work, before anything long begins."""
    check(not (args.json and is_ladder), "--json prints the figures of one run, a ladder has several: leave it out")
    check(not (args.log == "trackio" and is_ladder), "--log trackio keeps one run a process: leave out --ladder")
    if args.log:
        from fewshot.train.records.trackers import check_tracker

        check_tracker(args.log)
    if args.sample_every is not None:
        check(args.sample_every >= 1, f"--sample_every is {args.sample_every}, must be at least 1")
        check(n_ranks() == 1, "--sample_every needs a single process: several hold a part of the model each")


def with_tracker(reports: Iterator[StepMetrics], folder: Path, args: argparse.Namespace) -> Iterator[StepMetrics]:
    """Return the reports, which on their way go to the tracker that was asked for."""
    if not args.log:
        return reports
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.train.records.trackers import tracked

    return tracked(reports, RunFolder(folder), args.log)


def sampler(folder: Path, args: argparse.Namespace) -> Watch | None:
    """Return what writes a sample every so many steps; a prompt that the model cannot read is told once."""
    if args.sample_every is None:
        return None
    every, problem = args.sample_every, ""

    def write(model: GPT, metrics: StepMetrics) -> None:
        from fewshot.checkpoint.folder import RunFolder
        from fewshot.generate.samples import add_sample, sample
        from fewshot.tokenizer.load import load_tokenizer

        nonlocal problem
        if problem or metrics.step % every:
            return
        run = RunFolder(folder)
        try:
            tokenizer = load_tokenizer(run.tokenizer)
            new = sample(model, tokenizer, args.sample_prompt, step=metrics.step)
            add_sample(new, run.samples)
        except (FewshotError, OSError) as error:
            problem = str(error)
            note(f"no samples are written: {problem}; training goes on")
            return
        note(f"step {metrics.step:,} writes: {new.prompt}{new.text}")

    return write
