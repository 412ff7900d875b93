"""Zero-, one- and few-shot accuracy of a run; no gradient updates.

  fewshot evaluate RUN --tasks novel_symbols,arithmetic_2d_add --shots 0,1,8
  fewshot evaluate RUN --tasks lambada --data FOLDER

Every shot count is measured on the same items; results go to RUN/evaluations/ and are shown by 'fewshot report'.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.evaluate.run import Result


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
    from fewshot.base.log import note
    from fewshot.checkpoint.run import load_run
    from fewshot.cli.show import counted, print_json, show_results
    from fewshot.evaluate.run import evaluate

    check(args.batch_size >= 1, f"--batch_size is {args.batch_size}, must be at least 1")
    check(args.data is None or args.data.exists(), f"--data {args.data} does not exist")
    words = [word.strip() for word in args.shots.split(",")]
    check(
        all(word.isdecimal() for word in words), f"--shots is {args.shots!r}; give numbers with commas, such as 0,1,8"
    )
    shots = sorted({int(word) for word in words})
    tasks = [make_task(name.strip(), data=args.data) for name in args.tasks.split(",")]
    model, tokenizer, checkpoint = load_run(args.folder)
    everything = {}
    for task in tasks:
        note(f"{task.name}: {task.source}")
        with counted(task.name) as on_progress:
            results = evaluate(
                model,
                tokenizer,
                task,
                shots=shots,
                limit=args.limit,
                seed=args.seed,
                batch_size=args.batch_size,
                on_progress=on_progress,
            )
        everything[task.name] = results
    flat = [result for results in everything.values() for result in results]
    if args.json:
        print_json([result.to_json() for result in flat])
    else:
        show_results(flat)
    for name, results in everything.items():
        store_results(checkpoint.path.resolve().parents[1], name, checkpoint.step, results)
    return 0


def store_results(run: Path, task: str, step: int, results: Sequence[Result]) -> None:
    """Write RUN/evaluations/TASK.json; other shot counts measured on the same step and questions stay in it.

    A measurement on fewer questions never replaces one on more: it is printed only, and that is said.
    """
    from fewshot.base.files import read_json, write_json
    from fewshot.base.log import note

    path = run / "evaluations" / f"{task}.json"
    stored = read_json(path) if path.is_file() else {}
    old = stored.get("results", []) if stored.get("step") == step else []
    n_old, n_new = (max((one["n"] + one["n_skipped"] for one in many), default=0) for many in (old, _plain(results)))
    if n_old > n_new:
        note(f"{path} keeps its results on {n_old:,} questions; these on {n_new:,} are not stored (--limit {n_old})")
        return
    measured = {(result.metric, result.shots) for result in results}
    same = n_old == n_new and all(one["seed"] == results[0].seed for one in old)
    kept = [one for one in old if same and (one["metric"], one["shots"]) not in measured]
    plain = sorted([*kept, *_plain(results)], key=lambda one: (one["metric"], one["shots"]))
    write_json(path, {"step": step, "results": plain})


def _plain(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [result.to_json() for result in results]
