"""Learning to learn: in the weights (MAML and its relatives) and in context, on tasks that were never trained on.

  fewshot meta sinusoid                            MAML on the paper's sinusoids, then 5 points of 600 unseen waves
  fewshot meta sinusoid --learner pretrain         its baseline: trained on all tasks at once
  fewshot meta omniglot --config runs/meta_omniglot.yaml --outer.lr 2e-3
  fewshot meta report out/meta_sinusoid_maml out/meta_sinusoid_pretrain --out meta.html

Learners: maml, fomaml, anil, meta-sgd, maml++, reptile, pretrain, context; a task has those that make sense for it.
Any field of the configuration can be given as --section.field VALUE. State is kept in the --out folder: run the same
command again after an interruption and it goes on. Source: Finn et al. 2017, Brown et al. 2020 section 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.meta.measure import Measured

TAKES_OVERRIDES = True
PAGE = "report.html"
MOST_COLUMNS = 8  # with intervals
TASKS = ("sinusoid", "omniglot", "regression", "markov", "text")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, which learner; or which results to show."""
    parser.add_argument("tasks", choices=[*TASKS, "report"])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of report: the --out folders to show")
    parser.add_argument("--config", type=Path, metavar="YAML", help="a configuration file; the options go over it")
    parser.add_argument("--learner", metavar="NAME", help="a published learner (that of the configuration, or maml)")
    parser.add_argument("--out", type=Path, help="folder for state and result (out/meta_TASKS_LEARNER); report's page")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="of report: write its figures there too, as SVG")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Train and measure, or write a page."""
    from fewshot.base.config import from_overrides, lay_over, read_yaml, to_plain
    from fewshot.base.errors import BadValue
    from fewshot.base.log import note
    from fewshot.bench.machine import machine
    from fewshot.cli.show import counted, print_json
    from fewshot.meta.experiment import about_training, configure, measure, prepare, train
    from fewshot.meta.learn import named
    from fewshot.meta.measure import to_json
    from fewshot.meta.report import write_report

    if args.tasks == "report":
        return _report(args)
    if args.folders:
        raise BadValue(f"{str(args.folders[0])!r} is not understood: folders are for 'fewshot meta report'")
    if args.figures:
        raise BadValue("--figures is for 'fewshot meta report'")
    given: dict[str, Any] = read_yaml(args.config) if args.config else {}
    if args.learner:
        given = lay_over(given, {"learner": named(args.learner)})
    config = configure(args.tasks, lay_over(given, from_overrides(args.overrides)))
    folder = args.out or Path("out") / (args.config.stem if args.config else f"meta_{args.tasks}")
    if args.out is None and args.learner:
        folder = folder.with_name(f"{folder.name}_{args.learner}")
    settings = {"kind": args.tasks, **to_plain(config)}
    experiment = prepare(args.tasks, config)
    folder.mkdir(parents=True, exist_ok=True)
    with counted(args.tasks) as on_progress:
        for name, row in train(experiment, folder, about=about_training(settings)):
            on_progress(int(row["iteration"]), experiment.loops[name].config.n_iterations)
            note(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in row.items()))
    measured = measure(experiment, folder, about={"settings": settings, "machine": machine()})
    write_report(folder / PAGE, [measured])
    if args.json:
        print_json(to_json(measured))
        return 0
    _show(measured)
    print(folder / PAGE)
    return 0


def _show(measured: Measured) -> None:
    from fewshot.cli.show import print_table
    from fewshot.meta.report import grouped, merge, pivot

    for (tasks, quantity), group in grouped([measured]).items():
        columns, rows = pivot(merge(group))
        if len(columns) > MOST_COLUMNS:  # the page has the intervals
            rows = [[cell.partition(" ±")[0] for cell in row] for row in rows]
        print_table(columns, rows, title=f"{tasks}: {quantity} on tasks that were never trained on, after K examples")


def _report(args: argparse.Namespace) -> int:
    from fewshot.base.errors import BadValue, check
    from fewshot.base.files import read_json, write_text
    from fewshot.meta.experiment import RESULT
    from fewshot.meta.measure import from_json
    from fewshot.meta.report import figures, file_name, grouped, merge, standalone, write_report

    if args.overrides or args.learner or args.config or args.json:
        raise BadValue("'fewshot meta report' takes folders, --out and --figures alone")
    check(bool(args.folders), "say which --out folders (or result files) the page is of")
    paths = [path / RESULT if path.is_dir() else path for path in args.folders]
    results = [from_json(read_json(path), where=str(path)) for path in paths]
    page = args.out or Path("meta.html")
    write_report(page, results)
    for group in grouped(results).values() if args.figures else ():
        for name, _, svg in figures(merge(group)):
            write_text(args.figures / f"{file_name(name)}.svg", standalone(svg))
    print(page)
    return 0
