"""Learning to learn: in the weights (MAML and its relatives) and in context, tested on tasks that were not trained on.

  fewshot meta sinusoid                            MAML on the paper's sinusoids, then 5 points of 600 unseen waves
  fewshot meta sinusoid --learner pretrain         its baseline: trained on all tasks at once
  fewshot meta sinusoid --fields                   every field of its configuration, with its default
  fewshot meta omniglot --config runs/meta_omniglot.yaml --outer.lr 2e-3
  fewshot meta report out/meta_sinusoid_maml out/meta_sinusoid_pretrain --out meta.html

Learners: maml, fomaml, anil, meta-sgd, maml++, reptile, pretrain, context; each kind of tasks allows those that fit it.
Any field of the configuration can be given as --section.field VALUE. The state is saved in the --out folder: give the
same command again after an interruption and it goes on. Source: Finn et al. 2017, Brown et al. 2020 section 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.base.log import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fewshot.meta.curves import Measured
    from fewshot.meta.experiment import Experiment

TAKES_OVERRIDES = True
DOCTYPE = b"<!doctype html>"
MAX_COLUMNS = 8  # of a table with intervals
TASKS = ("sinusoid", "omniglot", "regression", "boolean", "markov", "rare", "step", "text", "languages")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the kind of tasks, the learner and the folders; or the results to report on."""
    parser.add_argument("tasks", choices=[*TASKS, "report"])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of report: the --out folders to show")
    parser.add_argument("--config", type=Path, metavar="YAML", help="a configuration file; options override it")
    parser.add_argument("--learner", metavar="NAME", help="a published learner (that of the configuration, or maml)")
    parser.add_argument("--out", type=Path, help="folder for state and result (out/meta_TASKS_LEARNER); report's page")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="of report: write its figures there too, as SVG")
    parser.add_argument("--fields", action="store_true", help="list all fields of the configuration, do nothing else")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Train and measure, or write a report; return the exit code."""
    from fewshot.base.config import from_overrides, lay_over, read_yaml
    from fewshot.base.errors import BadValue
    from fewshot.base.lock import hold
    from fewshot.meta.experiment import configure
    from fewshot.meta.folder import check_folder
    from fewshot.meta.learners.weight_learner import learner_options

    if args.fields:
        if args.tasks not in TASKS or args.folders or args.config or args.learner:
            raise BadValue("--fields stands alone behind a kind of tasks, as in 'fewshot meta sinusoid --fields'")
        return _list_fields(args.tasks)
    if args.tasks == "report":
        return _report(args)
    if args.folders:
        raise BadValue(f"{str(args.folders[0])!r} is not understood: folders are for 'fewshot meta report'")
    if args.figures:
        raise BadValue("--figures is for 'fewshot meta report'")
    given: dict[str, Any] = read_yaml(args.config) if args.config else {}
    if args.learner:
        given = lay_over(given, {"learner": learner_options(args.learner)})
    config = configure(args.tasks, lay_over(given, from_overrides(args.overrides)))
    folder = args.out or Path("out") / (args.config.stem if args.config else f"meta_{args.tasks}")
    if args.out is None and args.learner:
        folder = folder.with_name(f"{folder.name}_{args.learner}")
    check_folder(folder)
    with hold(folder, doing=f"fewshot meta {args.tasks}"):
        try:
            return _train_and_measure(args.tasks, config, folder, as_json=args.json)
        except KeyboardInterrupt:
            note(f"stopped; what is trained is kept in {folder}: the same command again goes on from there")
            return 130


def _list_fields(kind: str) -> int:
    """Print every field of a kind's configuration with its default."""
    from fewshot.meta.options import description, option_groups

    print(f"{description(kind)}\n\nEvery field can be given as --FIELD VALUE, or in the YAML file of --config.")
    for group in option_groups(kind):
        print(f"\n{group.name or kind}: {group.summary}")
        for option in group.options:
            print(f"  --{option.name} {option.default}{f'  # {option.comment}' if option.comment else ''}")
    return 0


def _train_and_measure(kind: str, config: Any, folder: Path, *, as_json: bool) -> int:
    from fewshot.base.config import to_plain
    from fewshot.bench.hardware import hardware
    from fewshot.cli.show import print_json
    from fewshot.meta.curves import to_json
    from fewshot.meta.experiment import measure, prepare
    from fewshot.meta.folder import PAGE, about_training
    from fewshot.meta.report import write_report

    settings = {"kind": kind, **to_plain(config)}
    experiment = prepare(kind, config)
    _follow(experiment, folder, about=about_training(settings, experiment.data), kind=kind)
    note("measuring on unseen tasks")
    measured = measure(experiment, folder, about={"settings": settings, "machine": hardware()})
    write_report(folder / PAGE, [measured])
    if as_json:
        print_json(to_json(measured))
        return 0
    _show(measured)
    print(folder / PAGE)
    return 0


def _follow(experiment: Experiment, folder: Path, *, about: Mapping[str, Any], kind: str) -> None:
    """Train with a progress bar on standard error over the iterations of all loops, and print every logged row."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fewshot.meta.experiment import train

    loops = experiment.loops
    total = sum(loop.config.n_iterations for loop in loops.values())
    note(f"{kind}: {', '.join(loops)}; {total:,} iterations of the outer loop; state, result and page go to {folder}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(next(iter(loops)), total=total)

        def show(name: str, iteration: int) -> None:
            progress.update(bar, description=name, completed=sum(loop.iteration for loop in loops.values()))

        for name, row in train(experiment, folder, about=about, on_progress=show):
            progress.console.print(f"{name}: {_row_as_text(row)}", highlight=False, markup=False, soft_wrap=True)


def _row_as_text(row: Mapping[str, float]) -> str:
    """Return the figures of a logged row as text, with four digits but for the iteration."""
    figures = (f"{key.replace('_', ' ')} {value:,.4g}" for key, value in row.items() if key != "iteration")
    return ", ".join([f"iteration {int(row['iteration']):,}", *figures])


def _show(measured: Measured) -> None:
    from fewshot.cli.show import print_table
    from fewshot.meta.merge import grouped, merge
    from fewshot.meta.report import pivot

    for (tasks, quantity), group in grouped([measured]).items():
        columns, rows = pivot(merge(group))
        if len(columns) > MAX_COLUMNS:  # the report has the intervals
            rows = [[cell.partition(" ±")[0] for cell in row] for row in rows]
        print_table(columns, rows, title=f"{tasks}: {quantity} after K examples")


def _report(args: argparse.Namespace) -> int:
    from fewshot.base.errors import BadValue, check
    from fewshot.base.files import read_json, write_text
    from fewshot.meta.curves import from_json
    from fewshot.meta.figures import standalone
    from fewshot.meta.folder import RESULT, STATE
    from fewshot.meta.report import sections, write_report

    if args.overrides or args.learner or args.config or args.json:
        raise BadValue("'fewshot meta report' takes folders, --out and --figures alone")
    check(bool(args.folders), "say which --out folders (or result files) the page is of")
    for folder in filter(Path.is_dir, args.folders):
        is_unfinished = any(folder.glob(f"*{STATE}"))
        problem = (
            "is not finished: give its 'fewshot meta' command again"
            if is_unfinished
            else "is no folder of 'fewshot meta'"
        )
        check((folder / RESULT).is_file(), f"{folder} {problem} (it holds no {RESULT})")
    paths = [path / RESULT if path.is_dir() else path for path in args.folders]
    results = [from_json(read_json(path), where=str(path)) for path in paths]
    page = args.out or Path("meta.html")
    if page.is_file() and page.read_bytes()[: len(DOCTYPE)].lower() not in (b"", DOCTYPE):
        raise BadValue(f"{page} is there and is no page: give another file with --out")
    write_report(page, results)
    for section in sections(results) if args.figures else ():
        for figure in section.figures:
            write_text(args.figures / f"{figure.name}.svg", standalone(figure.svg))
    print(page)
    return 0
