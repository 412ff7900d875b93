"""Run everything on built-in text: corpus, tokenizer, training, generation, zero- to few-shot evaluation, report.

Takes minutes on two cores. The exit code is 0 if the results are as expected, and 1 if not.
"""

from __future__ import annotations

import argparse
import shutil
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.base.errors import BadValue
from fewshot.base.files import remove_litter
from fewshot.base.log import note
from fewshot.checkpoint.folder import RunFolder
from fewshot.cli.train import new_folder

if TYPE_CHECKING:
    from fewshot.probe.findings import Findings

MARKER = ".fewshot-demo"  # in a folder that the demo made, and so may make again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the run is written, and its seed."""
    parser.add_argument(
        "--out", type=new_folder, default=Path("out/demo"), metavar="RUN", help="run folder (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and the order of text (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo in a new folder, or again in one that it made."""
    from fewshot.base.lock import hold

    folder: Path = args.out
    if not (folder / MARKER).is_file():
        RunFolder(folder).check_is_new()
    with hold(folder, doing="fewshot demo"):
        return _run(folder, args.seed)


def _run(folder: Path, seed: int) -> int:
    from fewshot.checkpoint.load import load_run
    from fewshot.cli.report import report_run
    from fewshot.cli.show import counted, followed, print_outcome, print_table, show_results
    from fewshot.demo import recipe
    from fewshot.demo.texts import write_texts
    from fewshot.evaluate.models.gpt import GPTLanguageModel
    from fewshot.evaluate.run import evaluate
    from fewshot.evaluate.store.results import ResultsStore
    from fewshot.evaluate.tasks.table import make_task
    from fewshot.probe.page import heads_figure, in_words, rise_figure, rise_in_words
    from fewshot.report.html import side_by_side
    from fewshot.train.run import start_held

    if (folder / MARKER).is_file():
        _make_room(folder)
    (folder / MARKER).touch()
    RunFolder(folder).unfinished.touch()
    note("1. text: this machine's own documentation, and tasks with a new rule for every document")
    write_texts(folder / "text", recipe.DOCUMENTS, english_chars=recipe.ENGLISH_CHARS)
    note("2. training a GPT-3-shaped model on it")
    last = followed(start_held(recipe.configuration(folder / "text", seed=seed), folder, say=note))
    if last is None or last.step < last.n_steps:
        return print_outcome(folder, last)
    if last.val_loss is None:
        note(f"stopped before anything was measured; the model is in {folder}")
        return 130
    note("3. in-context learning: accuracy against the number of demonstrations, no gradient updates")
    model, tokenizer, checkpoint = load_run(folder)
    results, lm = [], GPTLanguageModel(model)
    store = ResultsStore(root=RunFolder(folder).evaluations, weights=checkpoint.weights, step=checkpoint.step)
    for name, limit in recipe.TASKS.items():
        task = make_task(name)
        store.check(task)
        with counted(name) as on_progress:
            answered = evaluate(
                lm,
                tokenizer,
                task,
                shots=recipe.SHOTS,
                limit=limit,
                seed=0,
                batch_size=64,
                store=store.answers(task),
                on_progress=on_progress,
            )
        store.add(task, answered)
        results += [result for answers in answered for result in answers.results()]
    show_results(results)
    note("4. which attention head copies, and when it came into being: all checkpoints")
    findings = _probed(folder)
    note(in_words(findings))
    note(rise_in_words(findings))
    told = "".join(f"<p>{escape(text)}</p>" for text in (in_words(findings), rise_in_words(findings)))
    sections = ["<h2>The head that copies</h2>", told, side_by_side([heads_figure(findings), rise_figure(findings)])]
    note(f"5. report: {report_run(folder, prompts=recipe.PROMPTS, sections=sections)}")
    checks = recipe.check_figures(results, last.val_loss)
    rows = [(check.claim, check.measured, "holds" if check.holds else "FAILS") for check in checks]
    print_table(("expected", "found", ""), rows)
    failed = [check for check in checks if not check.holds]
    for check in failed:
        note(
            f"not as expected: {check.claim}; found {check.measured}. Loss and curves are in {RunFolder(folder).report}"
        )
    return 1 if failed else 0


def _probed(folder: Path) -> Findings:
    """Return what the heads do at every checkpoint."""
    from fewshot.cli.probe import probed
    from fewshot.demo import recipe
    from fewshot.evaluate.load import names_of_checkpoints
    from fewshot.evaluate.tasks.table import make_task

    findings, _ = probed(
        names_of_checkpoints(str(folder)),
        {make_task(recipe.COPIED): recipe.COPIED_SHOTS},
        name=str(folder),
        limit=recipe.COPIED_QUESTIONS,
        over_steps=True,
    )
    return findings


def _make_room(folder: Path) -> None:
    """Delete what an earlier demo made but its results; raise BadValue before that for what it did not make."""
    remove_litter(folder)
    run = RunFolder(folder)
    made = [folder / "text", run.data, run.metrics, run.receipt, run.samples]
    made += [run.report, run.probe, run.config, run.tokenizer, run.unfinished]
    checkpoints = run.checkpoint_folders()
    others = set(folder.iterdir()) - {*made, folder / MARKER, run.lock, run.checkpoints, run.evaluations}
    if run.checkpoints.is_dir():
        others |= set(run.checkpoints.glob("[!.]*")) - set(checkpoints)
    if others:
        names = ", ".join(sorted(path.name for path in others)[:3])
        raise BadValue(f"{folder} holds {names}, which the demo did not make: give a new folder")
    for path in [*checkpoints, *made]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
