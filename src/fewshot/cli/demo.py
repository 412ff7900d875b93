"""The whole river on built-in text: corpus, tokenizer, training, generation, zero- to few-shot evaluation, report.

Takes minutes on two cores. Exit code 0 if the expected figures hold, 1 if not.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from fewshot.base.errors import BadValue
from fewshot.base.log import note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the run goes."""
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="RUN", help="run folder (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    from fewshot.base.files import write_json
    from fewshot.checkpoint.run import load_run
    from fewshot.cli.report import make_report
    from fewshot.cli.show import followed, print_table, show_results
    from fewshot.cli.train import finish
    from fewshot.demo import recipe
    from fewshot.demo.texts import write_texts
    from fewshot.evaluate.run import evaluate
    from fewshot.evaluate.tasks.table import make_task
    from fewshot.train.run import start

    folder: Path = args.out
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "text").is_dir():
            raise BadValue(f"{folder} exists and is no demo run: give another --out")
        shutil.rmtree(folder)
    note("1. text: this machine's own documentation, and tasks with a fresh rule for every document")
    write_texts(folder / "text", recipe.DOCUMENTS, english_chars=recipe.ENGLISH_CHARS)
    note("2. training a GPT-3-shaped model on it")
    last = followed(start(recipe.configuration(folder / "text"), folder, say=note))
    if last is None or last.step < last.n_steps or last.val_loss is None:
        return finish(folder, last)
    note("3. in-context learning: accuracy against the number of demonstrations, no gradient updates")
    model, tokenizer, checkpoint = load_run(folder)
    everything = []
    for name, limit in recipe.TASKS.items():
        results = evaluate(model, tokenizer, make_task(name), shots=recipe.SHOTS, limit=limit, seed=0, batch_size=64)
        path = folder / "evaluations" / f"{name}.json"
        write_json(path, {"step": checkpoint.step, "results": [result.to_json() for result in results]})
        everything += results
    show_results(everything)
    note(f"4. report: {make_report(folder, prompts=recipe.PROMPTS)}")
    checks = recipe.check_figures(everything, last.val_loss)
    print_table(
        ("expected", "found", ""), [(check.claim, check.found, "holds" if check.holds else "FAILS") for check in checks]
    )
    failed = [check for check in checks if not check.holds]
    for check in failed:
        note(f"not as expected: {check.claim}; found {check.found}. Loss and curves are in {folder}/report.html")
    return 1 if failed else 0
