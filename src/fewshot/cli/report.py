"""Write one HTML page about a run, or about several runs side by side. The page needs no other file.

  fewshot report RUN                          configuration, losses, accuracy against K and step, samples
  fewshot report RUN RUN2 ... --out FILE      what size changes: all runs in each figure
  fewshot report LADDER                       what 'fewshot train --ladder' predicted, and what came

The page shows the run's scores beside those of the GPT-3 model of the nearest size. Curves against the training step
need 'fewshot evaluate RUN --checkpoints all'. A page that fewshot wrote is replaced; any other file is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


SEVERAL_RUNS = "lab.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run folders and the page's file."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="a run folder, or several to compare")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"the page (default: RUN/report.html; {SEVERAL_RUNS} for several runs)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from fewshot.train.ladder.series import is_ladder, open_ladder

    folders: list[Path] = args.folders
    if len(folders) == 1 and is_ladder(folders[0]):
        from fewshot.cli.ladder import report_ladder

        print(report_ladder(open_ladder(folders[0]), args.out))
    elif len(folders) == 1:
        print(report_run(folders[0], path=args.out))
    else:
        print(report_several_runs(folders, args.out or Path(SEVERAL_RUNS)))
    return 0


def report_run(
    folder: Path,
    *,
    path: Path | None = None,
    prompts: Sequence[str] = ("",),
    n_tokens: int = 160,
    sections: Sequence[str] = (),
) -> Path:
    """Write the page of a run, with a sample that its model writes for each prompt; return the page's path.

    `sections` are parts of the page, as HTML.
    """
    from dataclasses import replace

    from fewshot.checkpoint.folder import RunFolder
    from fewshot.checkpoint.load import load_run
    from fewshot.evaluate.reports.one_run import write_report
    from fewshot.face.describe import evaluated_model_of
    from fewshot.generate.complete import complete
    from fewshot.generate.samples import read_samples
    from fewshot.generate.sampling import Sampling
    from fewshot.report.html import check_page

    path = path or RunFolder(folder).report
    check_page(path)
    model, tokenizer, checkpoint = load_run(folder)
    evaluated = evaluated_model_of(folder, model, checkpoint)
    tokens = [tokenizer.encode(prompt) or [tokenizer.eot] for prompt in prompts]
    sampling = Sampling(temperature=0.7, top_p=0.95)
    texts = complete(model, tokenizer, tokens, max_tokens=n_tokens, sampling=sampling, slide=True)
    samples = [(prompt, text.text) for prompt, text in zip(prompts, texts, strict=True)]
    early = {early.step: (early.prompt, early.text) for early in read_samples(RunFolder(folder).samples)}
    shown = replace(evaluated, samples=samples, early_samples=early)
    write_report(path, shown, title=f"fewshot: {evaluated.name}", sections=sections)
    return path


def report_several_runs(folders: Sequence[Path], path: Path) -> Path:
    """Write one page of several runs; return its path."""
    from fewshot.checkpoint.load import load_run
    from fewshot.evaluate.reports.several_runs import write_several_runs
    from fewshot.face.describe import evaluated_model_of
    from fewshot.report.html import check_page

    check_page(path)
    models = []
    for folder in folders:
        model, _, checkpoint = load_run(folder)
        models.append(evaluated_model_of(folder, model, checkpoint))
    write_several_runs(path, models, title=f"fewshot: {', '.join(model.name for model in models)}")
    return path
