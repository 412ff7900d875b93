"""Find which questions of a task are in a run's training text; score all, clean and dirty questions.

  fewshot contamination RUN --tasks lambada,multirc --data FOLDER
  fewshot contamination RUN --tasks lambada --data FOLDER --text PATH...     if the run's data folder is gone

A question is dirty if n of its words in a row are in the training text; n is 8 to 13, depending on the length of the
task's questions. The evidence goes to RUN/evaluations/step-N/contamination/TASK.json, with one figure for all tasks.
Source: Brown et al. 2020, section 4 and appendix C.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewshot.corpus.document import Document
    from fewshot.evaluate.contamination import SubsetScore
    from fewshot.tokenizer.vocab import Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: which run, which tasks, which text."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--tasks", required=True, help="task names, separated by commas")
    parser.add_argument(
        "--data", help="folder or zip archive with the tasks' original files, or 'hub' to download them"
    )
    parser.add_argument("--text", nargs="+", metavar="PATH", help="search this training text instead of the run's own")
    parser.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="field that holds the text in .jsonl and .parquet files (default: %(default)s)",
    )
    parser.add_argument(
        "--shots", type=int, default=0, help="number of demonstrations in each prompt (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, default=100_000, help="questions per task, at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed for drawing demonstrations (default: %(default)s)")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=32,
        help="texts computed at once; does not change the scores (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder for evidence and answers (default: RUN/evaluations)"
    )
    parser.add_argument("--json", action="store_true", help="print the evidence as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare the tasks with the training text, and evaluate them on clean and dirty questions."""
    from fewshot.base.errors import check
    from fewshot.base.files import write_text
    from fewshot.base.log import note
    from fewshot.cli.show import counted, print_json, print_table
    from fewshot.evaluate.contamination import find_contamination, split_results
    from fewshot.evaluate.data.hub import open_data
    from fewshot.evaluate.example import n_questions
    from fewshot.evaluate.load import load
    from fewshot.evaluate.reports.contamination import contamination_svg
    from fewshot.evaluate.run import evaluate
    from fewshot.evaluate.store.contamination import FIGURE, Evidence, counted_text, read_main_scores, store_evidence
    from fewshot.evaluate.store.results import open_store
    from fewshot.evaluate.tasks.table import make_task

    check(args.limit >= 1, f"--limit is {args.limit}, must be at least 1")
    check(args.shots >= 0, f"--shots is {args.shots}, must be at least 0")
    data = open_data(args.data)
    tasks = [make_task(name, data=data) for name in dict.fromkeys(map(str.strip, args.tasks.split(",")))]
    loaded = load(str(args.folder))
    store = open_store(
        args.out or loaded.folder,
        loaded.weights,
        step=loaded.step,
        name=loaded.name,
        wanted=args.out is not None,
    )
    examples = {task.name: [episode.example for episode in task.episodes(args.limit, 0, args.seed)] for task in tasks}
    note(f"comparing {sum(map(len, examples.values())):,} examples with the training text")
    began = time.perf_counter()
    documents, text = counted_text(_documents(args, loaded.tokenizer))
    synthetic = {task.name for task in tasks if task.synthetic}
    split = find_contamination(examples, documents, synthetic=synthetic)
    note(f"compared in {time.perf_counter() - began:.1f} s")
    evidence: dict[str, Evidence] = {}
    for task in tasks:
        with counted(task.name) as on_progress:
            (answered,) = evaluate(
                loaded.lm,
                loaded.tokenizer,
                task,
                shots=[args.shots],
                limit=args.limit,
                seed=args.seed,
                batch_size=args.batch_size,
                # its results are not stored: they are on other questions than those of the curves
                store=store.answers(task) if store else None,
                on_progress=on_progress,
            )
        if answered.n_skipped:
            note(
                f"{task.name}: {answered.n_skipped:,} of {n_questions(examples[task.name]):,} questions are compared "
                f"but not measured: they are too long for the model's context of {loaded.lm.n_ctx:,} tokens"
            )
        evidence[task.name] = Evidence(
            questions=answered.questions,
            text=text.hexdigest(),
            shots=args.shots,
            seed=args.seed,
            split=split[task.name],
            scores=tuple(
                split_results(split[task.name], answered.answers, task.metrics, shots=args.shots, seed=args.seed)
            ),
        )
    if store is not None:
        folder = store_evidence(store.folder(), evidence, step=store.step, weights=store.weights)
        write_text(folder / FIGURE, contamination_svg(read_main_scores(folder)))
        note(f"evidence and figure are in {folder}")
    if args.json:
        print_json({name: of_task.to_json() for name, of_task in evidence.items()})
        return 0
    lines = []
    for row in [row for of_task in evidence.values() for row in of_task.scores]:
        scores = map(_as_text, (row.all, row.clean, row.dirty))
        lines.append((row.task, row.metric, str(row.n_words), f"{row.clean_share:.1%}", *scores))
    print_table(("task", "metric", "n-gram", "clean", "all", "clean score", "dirty score"), lines, text=2)
    return 0


def _as_text(score: SubsetScore) -> str:
    """Return a value with its interval and the number of its questions, as text."""
    if score.value is None:
        return "-"
    interval = "" if score.low is None or score.high is None else f" ({score.low:.3f}-{score.high:.3f})"
    return f"{score.value:.3f}{interval} of {score.n:,}"


def _documents(args: argparse.Namespace, tokenizer: Tokenizer) -> Iterator[Document]:
    """Return the training documents, out of the run's shards or of the text that was given."""
    from itertools import chain

    from fewshot.checkpoint.data import read_data_config
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.corpus.sources import read_documents
    from fewshot.dataset.documents import documents_of_shards
    from fewshot.dataset.prepare import load_tokens

    if args.text:
        return read_documents(args.text, text_field=args.text_field, field_option="--text_field")
    folder = RunFolder(args.folder)
    shards = load_tokens(read_data_config(folder), folder.data).training
    return documents_of_shards(chain.from_iterable(shards), tokenizer)
