"""One HTML page of a run, or of several runs side by side. Complete in itself.

  fewshot report RUN                          configuration, losses, accuracy against K and step, samples
  fewshot report RUN RUN2 ... --out lab.html  what size changes: the same curves of all of them in each figure

Beside one's own scores stand those of the GPT-3 of the nearest size. Curves against the training step need
'fewshot evaluate RUN --checkpoints all'. A page that fewshot wrote is replaced, any other file is not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fewshot.checkpoint.manifest import Checkpoint
    from fewshot.evaluate.reports.page import Learner
    from fewshot.evaluate.scoring.loss_by_position import PositionLoss
    from fewshot.model.gpt import GPT

LAB = "lab.html"
POSITION_TOKENS = 1 << 16  # of held-out text, for the loss against position


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run folders."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="one run, or several to compare")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page (RUN/report.html; {LAB} of several runs)")


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    folders: list[Path] = args.folders
    print(make_report(folders[0], path=args.out) if len(folders) == 1 else make_lab(folders, args.out or Path(LAB)))
    return 0


def make_report(folder: Path, *, path: Path | None = None, prompts: Sequence[str] = ("",), n_tokens: int = 160) -> Path:
    """Gather what the run folder holds, let the model write a sample for each prompt, and write the page."""
    from dataclasses import replace

    from fewshot.checkpoint.folder import RunFolder
    from fewshot.checkpoint.load import load_run
    from fewshot.evaluate.reports.one_run import write_report
    from fewshot.evaluate.reports.page import check_page
    from fewshot.generate.complete import complete
    from fewshot.generate.sampling import Sampling

    path = path or RunFolder(folder).report
    check_page(path)
    model, tokenizer, checkpoint = load_run(folder)
    learner = _learner(folder, model, checkpoint)
    tokens = [tokenizer.encode(prompt) or [tokenizer.eot] for prompt in prompts]
    sampling = Sampling(temperature=0.7, top_p=0.95)
    texts = complete(model, tokenizer, tokens, max_tokens=n_tokens, sampling=sampling, slide=True)
    samples = [(prompt, text.text) for prompt, text in zip(prompts, texts, strict=True)]
    write_report(path, replace(learner, samples=samples), title=f"fewshot: {learner.name}")
    return path


def make_lab(folders: Sequence[Path], path: Path) -> Path:
    """Gather what the run folders hold and write one page of all of them."""
    from fewshot.checkpoint.load import load_run
    from fewshot.evaluate.reports.page import check_page
    from fewshot.evaluate.reports.several_runs import write_lab

    check_page(path)
    learners = []
    for folder in folders:
        model, _, checkpoint = load_run(folder)
        learners.append(_learner(folder, model, checkpoint))
    write_lab(path, learners, title=f"fewshot: {', '.join(one.name for one in learners)}")
    return path


def _learner(folder: Path, model: GPT, checkpoint: Checkpoint) -> Learner:
    """Return what the run folder holds and its model shows."""
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.evaluate.reports.page import Learner
    from fewshot.evaluate.store.results import newest, read_steps

    metrics = _metrics(folder)
    by_step = read_steps(RunFolder(folder).evaluations, _weights(checkpoint))
    n_parameters = sum(p.numel() for p in model.parameters())
    return Learner(
        name=folder.resolve().name,
        n_parameters=n_parameters,
        summary=_summary(folder, checkpoint, n_parameters, metrics),
        metrics=metrics,
        results=newest(by_step),
        by_step=by_step,
        positions=_positions(folder, model),
    )


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the run's metrics.jsonl; one that lacks a number that the page needs raises `BadFile`."""
    from fewshot.base.errors import BadFile
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.train.metrics import read_metrics

    path = RunFolder(folder).metrics
    rows = read_metrics(path)
    for at, row in enumerate(rows, start=1):
        wrong = [name for name in ("tokens", "seconds") if not isinstance(row.get(name), (int, float))]
        wrong += [name for name in ("loss", "val_loss") if not isinstance(row.get(name), (int, float, type(None)))]
        if wrong:
            raise BadFile(f"{path}: row {at} has no number {wrong[0]!r}: mend or delete that line")
    return rows


def _weights(newest: Checkpoint) -> dict[int, str]:
    """Return the weights of every checkpoint beside the newest, by step; unverified."""
    from fewshot.base.errors import BadFile
    from fewshot.base.files import read_json
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.checkpoint.manifest import MANIFEST, WEIGHTS

    found = {newest.step: newest.weights}
    for path in RunFolder(newest.path.parent.parent).checkpoint_folders():
        try:
            manifest = read_json(path / MANIFEST)
            found.setdefault(manifest["step"], manifest["files"][WEIGHTS]["sha256"])
        except (BadFile, KeyError, TypeError):  # a damaged one is no reason not to report on the others
            continue
    return found


def _summary(
    folder: Path, checkpoint: Checkpoint, n_parameters: int, metrics: Sequence[dict[str, Any]]
) -> dict[str, str]:
    from fewshot.bench.hardware import hardware
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.train.run import read_run_config

    shape = checkpoint.config
    summary = {
        "parameters": f"{n_parameters:,}",
        "shape": f"{shape.n_layers} layers, d_model {shape.d_model}, {shape.n_heads} heads of {shape.head_width}",
        "context": f"{shape.n_ctx:,} tokens",
        "attention": shape.pattern,
        "vocabulary": f"{shape.n_vocab:,}",
        "step": f"{checkpoint.step:,}",
    }
    run = RunFolder(folder)
    if run.config.is_file():
        config = read_run_config(folder)
        summary["optimizer"] = config.optimizer.summary
        summary["text"] = ", ".join(f"{source.name} ({source.weight:g})" for source in config.data.sources)
    if metrics:
        summary["training"] = f"{metrics[-1]['tokens']:,} tokens in {metrics[-1]['seconds']:.0f} s"
    summary["machine"] = ", ".join(f"{key} {value}" for key, value in hardware().items())
    return summary


def _positions(folder: Path, model: GPT) -> list[PositionLoss]:
    """Return loss against position on the run's held-out text; nothing where its tokens are gone."""
    from fewshot.base.errors import BadFile
    from fewshot.base.log import note
    from fewshot.checkpoint.data import read_data_config
    from fewshot.checkpoint.folder import RunFolder
    from fewshot.dataset.prepare import Tokens, load_validation, validation_rows
    from fewshot.evaluate.models.gpt import GPTLanguageModel
    from fewshot.evaluate.scoring.loss_by_position import loss_by_position, rows_apart

    run = RunFolder(folder)
    if not run.config.is_file() or not run.data.is_dir():
        return []
    data = read_data_config(run)
    try:
        tokens = Tokens((), load_validation(data, run.data))
    except BadFile as error:
        note(f"no loss against position: {error}")
        return []
    rows = validation_rows(tokens, n_ctx=model.config.n_ctx, say=lambda line: None)
    return [] if rows is None else loss_by_position(GPTLanguageModel(model), rows_apart(rows, n_tokens=POSITION_TOKENS))
