"""Zero-, one- and few-shot accuracy of a run; no gradient updates.

  fewshot evaluate RUN --tasks novel_symbols,arithmetic_2d_add --shots 0,1,8
  fewshot evaluate RUN --tasks lambada --data FOLDER

Every shot count is measured on the same items; results go to RUN/evaluations/ and are shown by 'fewshot report'.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, how many shots, how many items."""
    parser.add_argument("folder", type=Path, metavar="RUN")
    parser.add_argument("--tasks", default="novel_symbols", help="names with commas, or 'list' to see them all")
    parser.add_argument("--shots", default="0,1,4", help="numbers of demonstrations, with commas (%(default)s)")
    parser.add_argument("--limit", type=int, default=200, help="items of each task (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the demonstrations (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="does not change the scores (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder with the original files of a task that has any")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Evaluate."""
    from fewshot.evaluate.tasks.table import TASKS, make_task

    if args.tasks == "list" or str(args.folder) == "list":
        print("\n".join(sorted(TASKS)))
        return 0
    from fewshot.base.errors import check
    from fewshot.base.files import write_json
    from fewshot.base.log import note
    from fewshot.checkpoint.run import load_run
    from fewshot.cli.show import print_json, show_results
    from fewshot.evaluate.run import evaluate

    words = [word.strip() for word in args.shots.split(",")]
    check(
        all(word.isdecimal() for word in words), f"--shots is {args.shots!r}; give numbers with commas, such as 0,1,8"
    )
    shots = sorted({int(word) for word in words})
    tasks = [make_task(name.strip(), data=args.data) for name in args.tasks.split(",")]
    model, tokenizer, checkpoint = load_run(args.folder)
    everything = []
    for task in tasks:
        note(f"{task.name}: {task.source}")
        results = evaluate(
            model, tokenizer, task, shots=shots, limit=args.limit, seed=args.seed, batch_size=args.batch_size
        )
        everything += results
        path = checkpoint.path.parents[1] / "evaluations" / f"{task.name}.json"
        write_json(path, {"step": checkpoint.step, "results": [result.to_json() for result in results]})
    if args.json:
        print_json([result.to_json() for result in everything])
    else:
        show_results(everything)
    return 0
