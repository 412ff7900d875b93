"""Look inside a model: what each attention head does, which one copies from the prompt, and what is lost without it.

  fewshot probe RUN                                               scores of all heads
  fewshot probe RUN --task novel_symbols --shots 16 --ablate L1H0 L1H1
  fewshot probe RUN --task novel_symbols,hidden_letter,hidden_offset --shots 16,8,8
  fewshot probe RUN --checkpoints all --task novel_symbols        scores and accuracy over training
  fewshot probe hf:PATH --text "the text whose attention is drawn and scored"

Scores are attention on what stands just behind earlier occurrences of the same token (induction), on the same token,
and on the position before, each beside the score of a head that reads all its pattern allows alike. They are measured
where the answers of a task's prompts begin (novel_symbols unless --task names another), or over the whole of --text.
With --task each head is replaced in turn by its mean output over all positions of the task's prompts. The page is
RUN/probe.html; one that fewshot wrote is replaced, any other file is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewshot.evaluate.result import Result
    from fewshot.evaluate.task import Task
    from fewshot.model.gpt import GPT
    from fewshot.probe.ablation import Head
    from fewshot.probe.findings import Findings, TaskAblations
    from fewshot.tokenizer.vocab import Tokenizer

DEFAULT_TASK = "novel_symbols"  # whose prompts are scored where nothing else is given
N_PROMPTS = 64  # of a task, on which heads are scored and their mean outputs taken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, what its heads are scored on, and which heads are taken out of it."""
    parser.add_argument("model", metavar="RUN", help="a run folder, or hf:PATH for a Hugging Face GPT-2 folder")
    parser.add_argument(
        "--task", metavar="NAMES", help="evaluation tasks, separated by commas, to be solved without each head"
    )
    parser.add_argument(
        "--shots", metavar="K", help="demonstrations in a prompt: a number, or one a task (default: the task's own)"
    )
    parser.add_argument(
        "--ablate", nargs="+", default=[], metavar="HEAD", help="heads to ablate, each by itself (default: all heads)"
    )
    parser.add_argument("--limit", type=int, default=200, help="questions per task, at most (default: %(default)s)")
    parser.add_argument(
        "--text", metavar="TEXT", help="the text to score and draw (default: prompts of the first task)"
    )
    parser.add_argument(
        "--checkpoints",
        choices=("newest", "all"),
        default="newest",
        help="also score all checkpoints of the run (default: %(default)s)",
    )
    parser.add_argument(
        "--data", help="folder or zip archive with the tasks' original files, or 'hub' to download them"
    )
    parser.add_argument(
        "--out", type=Path, metavar="PAGE", help="the page (default: RUN/probe.html, or probe.html for hf:PATH)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, always with the same keys")


def run(args: argparse.Namespace) -> int:
    """Probe the model, print tables or JSON, and write the page."""
    from fewshot.base.errors import check
    from fewshot.cli.show import print_json
    from fewshot.cli.text_input import argument
    from fewshot.evaluate.load import names_of_checkpoints
    from fewshot.probe.ablation import Head
    from fewshot.report.html import check_page

    check(args.limit >= 1, f"--limit is {args.limit}, must be at least 1")
    check(args.task is not None or not args.ablate, "--ablate needs a --task, which is solved without the heads")
    heads = [Head.named(name) for name in dict.fromkeys(args.ablate)]
    path = args.out or page_of(args.model)
    check_page(path)
    findings, page = probed(
        names_of_checkpoints(args.model) if args.checkpoints == "all" else [args.model],
        make_tasks(args),
        name=args.model,
        limit=args.limit,
        solving=args.task is not None,
        heads=heads,
        text=None if args.text is None else argument(args.text, "--text"),
        over_steps=args.checkpoints == "all",
    )
    page(path)
    if args.json:
        print_json(findings.to_json() | {"page": str(path)})
    else:
        show(findings, path)
    return 0


def probed(
    models: Sequence[str],
    tasks: Mapping[Task, int],
    *,
    name: str,
    limit: int,
    solving: bool = True,
    heads: Sequence[Head] = (),
    text: str | None = None,
    over_steps: bool = False,
) -> tuple[Findings, Callable[[Path], None]]:
    """Return what is found in checkpoints, oldest first, and what writes its page; `tasks` have a number of shots each.

    The last checkpoint is the one that is described. Without `solving` the first task's prompts are scored alone.
    """
    from fewshot.cli.show import counted
    from fewshot.probe.ablation import check_known, heads_of
    from fewshot.probe.findings import Findings, StepFindings
    from fewshot.probe.page import write_probe
    from fewshot.probe.readers import distances
    from fewshot.probe.recording import weights_of
    from fewshot.probe.scores import score_heads

    solved = tasks if solving else {}
    steps = []
    with counted("checkpoints" if over_steps else "checkpoint") as on_progress:
        for done, model_name in enumerate(models):
            on_progress(done, len(models))
            model, tokenizer, step = opened(model_name)
            check_known(model, heads)
            texts = scored_texts(text, model, tokenizer, tasks)
            scores = score_heads(model, texts, last_only=text is None)
            results = {task.name: solve(model, tokenizer, task, k, limit) for task, k in solved.items()}
            accuracy = {task: result.value or 0.0 for task, result in results.items()}
            far = distances(model, texts, last_only=text is None)
            steps.append(StepFindings(step=step, heads=scores, accuracy=accuracy, distances=far))
    first, shots = next(iter(tasks.items()))
    findings = Findings(
        model=name,
        step=step,
        scored_on="over the given text"
        if text is not None
        else f"where the answers of {len(texts)} prompts of {first.name} begin, K = {shots}",
        heads=scores,
        tasks=[
            without_heads(model, tokenizer, task, k, results[task.name], heads or heads_of(model), limit)
            for task, k in solved.items()
        ],
        steps=steps if over_steps else (),
    )

    def write(path: Path) -> None:
        weights = weights_of(model, texts[0])
        write_probe(path, findings, text=tokenizer.decode(texts[0]), weights=weights, schedule=model.config.schedule())

    return findings, write


def show(findings: Findings, path: Path) -> None:
    """Print the findings as tables, and where the page is."""
    from fewshot.cli.show import print_table
    from fewshot.probe.page import ablation_rows, in_words, score_rows, step_rows
    from fewshot.probe.scores import KINDS

    title = f"attention {findings.scored_on}; in brackets chance"
    print_table(("head", "pattern", *KINDS), score_rows(findings.heads), title=title, text=2)
    if findings.tasks:
        columns, rows = ablation_rows(findings)
        print_table(columns, rows, title="accuracy without one head")
    if findings.steps:
        columns, rows = step_rows(findings)
        print_table(columns, rows, title="over training")
    print(in_words(findings))
    print(path)


def page_of(name: str) -> Path:
    """Return the page of a model: in its run folder, or in the current folder for a model of another program."""
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.checkpoint.formats.table import HUB

    if name.startswith(HUB):
        return RunFolder(Path()).probe
    return (RunFolder.of_checkpoint(Path(name).resolve()) or RunFolder(Path(name))).probe


def make_tasks(args: argparse.Namespace) -> Mapping[Task, int]:
    """Return the tasks of the command line, or the one whose prompts are scored, each with its number of shots."""
    from fewshot.base.errors import check
    from fewshot.evaluate.data.hub import open_data
    from fewshot.evaluate.tasks.table import make_task

    data = open_data(args.data)
    names = dict.fromkeys(map(str.strip, (args.task or DEFAULT_TASK).split(",")))
    tasks = [make_task(name, data=data) for name in names]
    for task in tasks:
        check(task.kind in ("choose", "complete"), f"{task.name} asks nothing, its texts are only scored: give another")
    words = [] if args.shots is None else [word.strip() for word in args.shots.split(",")]
    check(
        all(word.isdecimal() for word in words) and len(words) in (0, 1, len(tasks)),
        f"--shots is {args.shots!r}; give a number, or one for each of the {len(tasks)} tasks, such as 16,8",
    )
    shots = [int(word) for word in words] or [task.default_shots for task in tasks]
    return dict(zip(tasks, shots if len(shots) == len(tasks) else shots * len(tasks), strict=True))


def opened(name: str) -> tuple[GPT, Tokenizer, int]:
    """Return a model, its tokenizer and its step, which is 0 for a model of another program."""
    from fewshot.checkpoint.formats.table import HUB, open_model
    from fewshot.checkpoint.load import load_run

    if name.startswith(HUB):
        model, tokenizer, _ = open_model(name)
        return model, tokenizer, 0
    model, tokenizer, checkpoint = load_run(Path(name))
    return model, tokenizer, checkpoint.step


def scored_texts(text: str | None, model: GPT, tokenizer: Tokenizer, tasks: Mapping[Task, int]) -> list[list[int]]:
    """Return the texts that heads are scored on, as tokens; the first is drawn."""
    if text is not None:
        return [[tokenizer.start, *tokenizer.encode(text)]]
    task, k = next(iter(tasks.items()))
    return prompts_of(task, k, model, tokenizer)


def prompts_of(task: Task, shots: int, model: GPT, tokenizer: Tokenizer) -> list[list[int]]:
    """Return prompts of a task as tokens, up to where the answer begins."""
    from fewshot.base.errors import check
    from fewshot.evaluate.prompt import build_prompt

    episodes = task.episodes(N_PROMPTS, shots, 0)
    built = [build_prompt(tokenizer, task, episode, shots=shots, n_ctx=model.config.n_ctx) for episode in episodes]
    prompts = [list(prompt.tokens) for prompt in built if prompt is not None]
    check(bool(prompts), f"no question of {task.name} fits a context of {model.config.n_ctx:,} tokens: give another")
    return prompts


def solve(model: GPT, tokenizer: Tokenizer, task: Task, shots: int, limit: int) -> Result:
    """Return the main result of a task."""
    from fewshot.base.errors import check
    from fewshot.evaluate.models.gpt import GPTLanguageModel
    from fewshot.evaluate.run import evaluate

    (answers,) = evaluate(GPTLanguageModel(model), tokenizer, task, shots=[shots], limit=limit, seed=0)
    result = answers.results()[0]
    check(
        result.value is not None and result.share,
        f"{task.name} has no accuracy here: no question fits the context, or its metric is {result.metric}",
    )
    return result


def without_heads(
    model: GPT, tokenizer: Tokenizer, task: Task, shots: int, whole: Result, heads: Sequence[Head], limit: int
) -> TaskAblations:
    """Return how well a task is solved without each head; `whole` is the result with all of them."""
    from fewshot.cli.show import counted
    from fewshot.probe.findings import TaskAblations, ablate_each
    from fewshot.probe.recording import mean_outputs

    means = mean_outputs(model, prompts_of(task, shots, model, tokenizer))
    with counted(f"{task.name} without a head") as on_progress:
        ablated = ablate_each(
            model,
            heads,
            means,
            lambda: solve(model, tokenizer, task, shots, limit).value or 0.0,
            on_progress=on_progress,
        )
    return TaskAblations(
        task=task.name,
        shots=shots,
        n=whole.n,
        metric=whole.metric,
        accuracy=whole.value or 0.0,
        chance=whole.chance,
        ablated=ablated,
    )
