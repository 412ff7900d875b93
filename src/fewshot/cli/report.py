"""One HTML page of a run: its configuration, loss curves, accuracy against K, samples. Complete in itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run folder."""
    parser.add_argument("folder", type=Path, metavar="RUN")


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    print(make_report(args.folder))
    return 0


def make_report(folder: Path, *, prompts: Sequence[str] = ("",), n_tokens: int = 160) -> Path:
    """Gather what the run folder holds, let the model write a sample for each prompt, and write the page."""
    from fewshot.base.files import read_json
    from fewshot.bench.machine import machine
    from fewshot.checkpoint.run import load_run
    from fewshot.evaluate.report import write_report
    from fewshot.evaluate.run import Result
    from fewshot.generate.complete import complete
    from fewshot.generate.sampling import Sampling
    from fewshot.train.loop import METRICS, read_metrics
    from fewshot.train.run import read_run_config

    model, tokenizer, checkpoint = load_run(folder)
    rows = read_metrics(folder / METRICS)
    results = [
        Result.from_json(plain, where=str(path))
        for path in sorted((folder / "evaluations").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for plain in _results_in(read_json(path), path)
    ]
    tokens = [tokenizer.encode(prompt) or [tokenizer.eot] for prompt in prompts]
    sampling = Sampling(temperature=0.7, top_p=0.95)
    texts = complete(model, tokenizer, tokens, max_tokens=n_tokens, sampling=sampling, slide=True)
    shape = model.config
    summary = {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "shape": f"{shape.n_layers} layers, d_model {shape.d_model}, {shape.n_heads} heads of {shape.head_width}",
        "context": f"{shape.n_ctx:,} tokens",
        "attention": shape.pattern,
        "vocabulary": f"{shape.n_vocab:,}",
        "step": f"{checkpoint.step:,}",
    }
    if (folder / "config.yaml").is_file():
        config = read_run_config(folder)
        summary["optimizer"] = config.optimizer.summary
        summary["text"] = ", ".join(f"{source.name} ({source.weight:g})" for source in config.data.sources)
    if rows:
        summary["training"] = f"{rows[-1]['tokens']:,} tokens in {rows[-1]['seconds']:.0f} s"
    summary["machine"] = ", ".join(f"{key} {value}" for key, value in machine().items())
    path = folder / REPORT
    write_report(
        path,
        title=f"fewshot: {folder.name}",
        summary=summary,
        metrics=rows,
        results=results,
        samples=[(prompt, text.text) for prompt, text in zip(prompts, texts, strict=True)],
    )
    return path


def _results_in(stored: Any, path: Path) -> list[Any]:
    from fewshot.base.errors import BadFile

    if not isinstance(stored, dict) or not isinstance(stored.get("results"), list):
        raise BadFile(f"{path} holds no results of fewshot evaluate: delete or move it")
    return stored["results"]
