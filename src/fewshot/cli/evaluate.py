"""Measure zero-, one- and few-shot scores of a model, as the GPT-3 paper does; no gradient updates.

  fewshot evaluate list
  fewshot evaluate RUN --tasks novel_symbols,arithmetic_2d_add --shots 0,1,8
  fewshot evaluate RUN --tasks lambada,hellaswag --data FOLDER --shots paper
  fewshot evaluate RUN --tasks hellaswag --data hub
  fewshot evaluate RUN --tasks hidden_letter --seeds 0,1,2 --orders 4
  fewshot evaluate RUN --tasks hidden_letter --against RUN2
  fewshot evaluate RUN --tasks novel_symbols --checkpoints all
  fewshot evaluate hf:PATH --tasks piqa --data FOLDER --protocol gpt3,lm-eval

All shot counts get the same questions. Answers are stored as they come: after an interruption, run the same command
again and it continues. Results of a run go to RUN/evaluations/step-N/; 'fewshot report' shows them. Results of a
third-party model (hf:PATH) go to evaluations/NAME-DIGEST/. A result is replaced only by a result with the same weights,
K, seed and questions.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.evaluate.load import Loaded
    from fewshot.evaluate.result import TaskAnswers
    from fewshot.evaluate.task import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: which model, which tasks, how many shots and questions."""
    parser.add_argument("model", metavar="RUN", help="a run folder, or hf:PATH for a model of another program")
    parser.add_argument(
        "--tasks",
        default="novel_symbols",
        help="task names, separated by commas, or 'list' for a table of all tasks (default: %(default)s)",
    )
    parser.add_argument(
        "--shots",
        default="0,1,4",
        help="numbers of demonstrations, separated by commas; 'paper' is the paper's number for the task, 'best' the "
        "number with the best score on the task's development set (default: %(default)s)",
    )
    parser.add_argument(
        "--protocol",
        default="gpt3",
        help="how prompts are made and answers judged: gpt3, lm-eval, or both, separated by a comma "
        "(default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, default=200, help="questions per task, at most (default: %(default)s)")
    parser.add_argument(
        "--seeds",
        "--seed",
        default="0",
        help="seeds for drawing demonstrations; several, separated by commas, give mean and spread "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--orders",
        type=int,
        default=1,
        help="number of orders in which the same demonstrations are shown (default: %(default)s)",
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="change the demonstrations: wrong_labels=SHARE, contradiction=later|earlier, place=first|last|N or "
        "fresh_mapping; may be given several times, each is evaluated by itself",
    )
    parser.add_argument(
        "--calibration",
        action="store_true",
        help="for tasks with choices, also measure the calibration error: is the model as sure as it is right?",
    )
    parser.add_argument(
        "--against", metavar="RUN2", help="also evaluate this model, and compare both question by question"
    )
    parser.add_argument(
        "--checkpoints",
        choices=("newest", "all"),
        default="newest",
        help="which checkpoints of the run to evaluate (default: %(default)s); "
        "train with --loop.keep_checkpoints N to keep several",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=32,
        help="texts computed at once; does not change the scores (default: %(default)s)",
    )
    parser.add_argument(
        "--data", help="folder or zip archive with the tasks' original files, or 'hub' to download them"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder for all results (default: RUN/evaluations, or evaluations for hf:PATH)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, always with the same keys")


def run(args: argparse.Namespace) -> int:
    """Evaluate the model, print tables or JSON, and store the results."""
    if args.tasks == "list" or args.model == "list":
        list_tasks()
        return 0
    from fewshot.base.dist import finish, rank
    from fewshot.base.errors import check
    from fewshot.base.log import note
    from fewshot.cli.show import print_json
    from fewshot.evaluate.load import load, names_of_checkpoints

    check(args.batch_size >= 1, f"--batch_size is {args.batch_size}, must be at least 1")
    check(args.limit >= 1, f"--limit is {args.limit}, must be at least 1")
    check(args.orders >= 1, f"--orders is {args.orders}, must be at least 1")
    check(not (args.checkpoints == "all" and args.against), "--against and --checkpoints all cannot be combined")
    check(
        args.against != args.model, f"--against is {args.against}, which is the first model itself: give another model"
    )
    check(args.orders == 1 or not args.variant, "--orders and --variant cannot be combined: both place demonstrations")
    tasks = make_tasks(args)
    seeds = numbers("--seeds", args.seeds)
    other = load(args.against) if args.against else None  # refused before anything is asked
    output: dict[str, list[dict[str, Any]]] = {"models": [], "protocols": [], "comparison": []}
    for name in names_of_checkpoints(args.model) if args.checkpoints == "all" else [args.model]:
        loaded = load(name)
        if args.checkpoints == "all":
            note(f"{name}: step {loaded.step:,}")
        with note_how_to_go_on(loaded):
            answered = ask(loaded, tasks, seeds, args)
        output["models"].append(print_model(args.model, loaded, answered, args))
    if "," in args.protocol:
        output["protocols"] = print_protocols(answered[0], args)
    if other is not None:
        check(
            (other.folder, other.weights) != (loaded.folder, loaded.weights),
            f"{args.model} and {args.against} are the same model in one folder: give another model to --against",
        )
        with note_how_to_go_on(other):
            others = ask(other, tasks, seeds, args)
        output["models"].append(print_model(args.against, other, others, args))
        output["comparison"] = print_comparison(answered[0], others[0], args)
    if rank() == 0 and args.json:
        print_json(output)
    finish()
    return 0


@contextlib.contextmanager
def note_how_to_go_on(loaded: Loaded) -> Iterator[None]:
    """Write on Ctrl-C that the answers so far are stored, and how to go on."""
    from fewshot.base.log import note

    try:
        yield
    except KeyboardInterrupt:
        note(f"stopped; the answers so far are in {loaded.folder}: run the same command again to continue")
        raise


def list_tasks() -> None:
    """Print a table of all tasks: the files that they need, and what a guess scores."""
    from fewshot.cli.show import print_table
    from fewshot.evaluate.tasks.table import list_tasks

    rows = [(row.name, row.files, "" if row.chance is None else f"{row.chance:.3f}") for row in list_tasks()]
    print_table(("task", "files in --data", "chance"), rows, text=2)


def make_tasks(args: argparse.Namespace) -> Mapping[Task, Sequence[int]]:
    """Return the tasks of the command line under every protocol, each with its numbers of demonstrations."""
    from dataclasses import replace

    from fewshot.base.errors import check, look_up
    from fewshot.base.log import note
    from fewshot.evaluate.data.hub import open_data
    from fewshot.evaluate.metrics.calibration import calibration_error
    from fewshot.evaluate.protocol import PROTOCOLS
    from fewshot.evaluate.task import paired_with
    from fewshot.evaluate.tasks.table import make_task
    from fewshot.evaluate.variants import varied

    names = list(dict.fromkeys(map(str.strip, args.tasks.split(","))))
    protocols = [
        look_up("protocol", name, PROTOCOLS) for name in dict.fromkeys(map(str.strip, args.protocol.split(",")))
    ]
    data = open_data(args.data)
    tasks: dict[Task, Sequence[int]] = {}
    under_first: dict[str, Task] = {}
    for protocol in protocols:
        for name in names:
            task = make_task(name, data=data, protocol=protocol)
            if task.name in under_first:  # another protocol has the first one's questions and K
                task = paired_with(task, under_first[task.name], limit=args.limit)
                if not task.episodes(args.limit, 0, 0):
                    note(f"{task.name}: {protocol.name} has none of the questions that {protocols[0].name} asks")
            elif len(protocols) > 1:
                under_first[task.name] = task
            if args.calibration and task.kind == "choose":
                error = calibration_error(task.metrics[0].normalisation)
                task = replace(task, metrics=(*task.metrics, error))
            shots = shot_counts(args.shots, task)
            check(not args.variant or 0 not in shots, f"--shots is {args.shots!r}: --variant needs 1 or more")
            for variant in args.variant:
                tasks[varied(task, variant)] = shots
            if not args.variant:
                tasks[task] = shots
    return tasks


def ask(
    loaded: Loaded, tasks: Mapping[Task, Sequence[int]], seeds: Sequence[int], args: argparse.Namespace
) -> tuple[list[TaskAnswers], list[TaskAnswers]]:
    """Return the model's answers, with demonstrations as they are drawn, and those in all orders; store the results."""
    from fewshot.base.log import note
    from fewshot.cli.show import counted
    from fewshot.evaluate.run import evaluate
    from fewshot.evaluate.store.results import open_store
    from fewshot.evaluate.variation import in_order, repeats

    store = open_store(
        args.out or loaded.folder,
        loaded.weights,
        step=loaded.step,
        name=loaded.name,
        wanted=args.out is not None,
    )
    drawn: list[TaskAnswers] = []
    orders: list[TaskAnswers] = []
    for task, shots in tasks.items():
        note(f"{task.name}, {task.protocol.name}: {'; '.join([task.source, *task.notes])}")
        if "best" in args.shots:
            shots = sorted({*shots, best_of(loaded, task, seeds[0], args)})
        for seed, order, ks in repeats(shots, seeds, args.orders):
            if store and order == 0:
                store.check(task)
            with counted(task.name) as on_progress:
                answered = evaluate(
                    loaded.lm,
                    loaded.tokenizer,
                    in_order(task, order),
                    shots=ks,
                    limit=args.limit,
                    seed=seed,
                    batch_size=args.batch_size,
                    store=store.answers(task) if store else None,
                    on_progress=on_progress,
                )
            if order == 0:
                drawn += answered
                if store:
                    store.add(task, answered)
            if seed == seeds[0]:
                orders += [answers for answers in answered if answers.shots > 1]
    return drawn, orders


def best_of(loaded: Loaded, task: Task, seed: int, args: argparse.Namespace) -> int:
    """Return the number of demonstrations that does best on the task's development set."""
    from fewshot.base.log import note
    from fewshot.cli.show import counted
    from fewshot.evaluate.best_shots import best_shots, candidates

    with counted(f"{task.name}, development set") as on_progress:
        best, values = best_shots(
            loaded.lm,
            loaded.tokenizer,
            task,
            candidates(task.default_shots),
            limit=args.limit,
            seed=seed,
            batch_size=args.batch_size,
            on_progress=on_progress,
        )
    at_every_k = ", ".join(f"K = {k}: {value:.3f}" for k, value in values.items())
    note(f"{task.name}: K = {best} scores best on the development set ({at_every_k})")
    return best


def print_model(
    name: str, loaded: Loaded, answered: tuple[list[TaskAnswers], list[TaskAnswers]], args: argparse.Namespace
) -> dict[str, Any]:
    """Print the results of one model as tables, unless JSON is wanted; return them as plain values."""
    from fewshot.base.config import to_plain
    from fewshot.base.dist import rank
    from fewshot.base.log import note
    from fewshot.cli.show import show_results, show_varied
    from fewshot.evaluate.result import too_long
    from fewshot.evaluate.variation import vary

    drawn, orders = answered
    results = [result for answers in drawn for result in answers.results()]
    varied = {"seeds": vary(drawn) if "," in args.seeds else [], "orders": vary(orders) if args.orders > 1 else []}
    if rank() == 0 and not args.json:
        many = args.against or args.checkpoints == "all"
        show_results(results, title=f"{name}, step {loaded.step:,}" if many else None)
        for line in too_long(drawn, loaded.lm.n_ctx):
            note(line)
        for over, rows in varied.items():
            if rows:
                show_varied(rows, title=f"over {over} of the demonstrations")
    plain = {"model": name, "step": loaded.step, "results": [result.to_json() for result in results]}
    return plain | {over: [to_plain(row) for row in rows] for over, rows in varied.items()}


def print_comparison(
    first: Sequence[TaskAnswers], second: Sequence[TaskAnswers], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Print two models on the same questions, unless JSON is wanted; return the comparison as plain values."""
    from fewshot.base.config import to_plain
    from fewshot.base.dist import rank
    from fewshot.cli.show import show_comparisons
    from fewshot.evaluate.compare import compare_all

    rows = compare_all(first, second)
    if rank() == 0 and not args.json:
        show_comparisons(rows, title=f"first: {args.model}, second: {args.against}, on the same questions")
    return [
        {"task": ours.task.name, "protocol": ours.task.protocol.name, "shots": ours.shots, "seed": ours.seed}
        | to_plain(comparison)
        for ours, comparison in rows
    ]


def print_protocols(answered: Sequence[TaskAnswers], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the first protocol against the others, unless JSON is wanted; return the comparison as plain values."""
    from fewshot.base.config import to_plain
    from fewshot.base.dist import rank
    from fewshot.base.log import note
    from fewshot.cli.show import show_comparisons
    from fewshot.evaluate.compare import compare_protocols

    rows = compare_protocols(answered)
    if rank() == 0 and not args.json:
        protocols = list(dict.fromkeys(answers.task.protocol for answers in answered))
        names = ", ".join(protocol.name for protocol in protocols)
        show_comparisons(rows, title=f"{names} on the same questions, the main metric of each")
        for protocol in protocols:
            note(f"{protocol.name}: {'; '.join(protocol.reasons)}")
    return [
        {"task": theirs.task.name, "shots": theirs.shots, "seed": theirs.seed} | to_plain(comparison)
        for theirs, comparison in rows
    ]


def numbers(option: str, text: str) -> list[int]:
    """Return the distinct whole numbers of a text with commas, in their order."""
    from fewshot.base.errors import check

    words = [word.strip() for word in text.split(",")]
    check(
        all(word.isdecimal() for word in words),
        f"{option} is {text!r}; give numbers separated by commas, such as 0,1,2",
    )
    return list(dict.fromkeys(map(int, words)))


def shot_counts(text: str, task: Task) -> Sequence[int]:
    """Return the numbers of demonstrations that `--shots` names; "best" is found later."""
    from fewshot.base.errors import check

    words = [word.strip() for word in text.split(",")]
    check(
        all(word.isdecimal() or word in ("paper", "best") for word in words),
        f"--shots is {text!r}; give numbers separated by commas, such as 0,1,8, or paper, or best",
    )
    check(
        "best" not in words or task.dev is not None,
        f"{task.name} has no development set, which --shots best needs: give numbers",
    )
    return sorted({task.default_shots if word == "paper" else int(word) for word in words if word != "best"})
