"""The card of an exported model: README.md with a head for machines, and the curve against K as a picture.

In: an evaluated model, what its export said. Out: files by name. Every number is one that the run has stored; what was
not measured is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fewshot.evaluate.contamination import CleanDirtyScores
from fewshot.evaluate.reports.figures import metric_svg, page_styles
from fewshot.evaluate.reports.page import EvaluatedModel, by_metric, title_of
from fewshot.evaluate.result import Result
from fewshot.model.plan import FLOPS_PER_PF_DAY

CARD, CURVE = "README.md", "curve.svg"
NOT_MEASURED = "not measured"
TAGS = ["fewshot", "gpt", "in-context-learning"]
LICENCES = "Licences of text and model: not given; whoever publishes it says them here."
LIMITS = (
    "It goes on with a text as its training text would, right or wrong. It was not trained to follow instructions or "
    "to refuse, and repeats what its text holds, prejudice and private data included."
)


def card_files(
    model: EvaluatedModel,
    *,
    library: str,
    usage: str,
    told: str,
    sources: Sequence[str],
    contamination: Sequence[CleanDirtyScores],
) -> dict[str, str]:
    """Return README.md, and the curve if accuracy was measured at two K or more.

    `usage` is how to load it, in Markdown; `told` what was compared when it was written; `sources` the texts that it
    was trained on, `contamination` the scores without the questions that stand in them.
    """
    groups = by_metric(model.results)
    measured = [result for group in groups.values() for result in group if result.value is not None]
    curves = {title: group for (title, _), group in groups.items() if group[0].share and _is_curve(group)}
    head: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-generation", "tags": TAGS}
    if measured:
        head["model-index"] = [{"name": model.name, "results": [_for_machines(result) for result in measured]}]
    learning = [f"![accuracy against the number of demonstrations]({CURVE})", ""] if curves else []
    learning += _scores(groups) if measured else [f"Scores: {NOT_MEASURED}."]
    sections = {
        "Use": [usage, "", f"The export was {told}."],
        "Data": [*(f"- {source}" for source in sources or [f"training text: {NOT_MEASURED}"]), "", LICENCES],
        "Training": _training(model),
        "Learning from the context": [*learning, "", *_contamination(contamination)],
        "Limits": [LIMITS],
    }
    shape = [f"| {name} | {_cell(value)} |" for name, value in model.summary.items() if name != "machine"]
    lines = ["---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(), "---", "", f"# {model.name}", ""]
    lines += ["A GPT trained with fewshot.", "", "| | |", "|---|---|", *shape, ""]
    for title, text in sections.items():
        lines += [f"## {title}", "", *text, ""]
    files = {CARD: "\n".join(lines)}
    if curves:
        points = {title: [(result.shots, result) for result in group] for title, group in curves.items()}
        files[CURVE] = metric_svg(points, "shots", page_styles(list(points)))
    return files


def _is_curve(group: Sequence[Result]) -> bool:
    return sum(result.value is not None for result in group) > 1


def _training(model: EvaluatedModel) -> list[str]:
    """Return tokens, arithmetic and the losses of the last row that has them."""
    if not model.metrics:
        return [f"Tokens and losses: {NOT_MEASURED} (the run has no metrics)."]
    last = model.metrics[-1]
    flops = 6 * model.n_parameters * last["tokens"]
    lines = [
        f"- {last['tokens']:,} tokens in {last['step']:,} steps and {last['seconds']:,.0f} s",
        f"- about {flops:.2g} FLOPs, {flops / FLOPS_PER_PF_DAY:.2g} PF-days (6 for each parameter and token)",
    ]
    held_out = [row for row in model.metrics if row.get("val_loss") is not None]
    if held_out:
        row = held_out[-1]
        bits = row.get("val_bits_per_byte")
        in_bits = "" if bits is None else f", {bits:.3f} bits a byte"
        lines.append(f"- held-out loss {row['val_loss']:.3f} nats a token{in_bits}, after step {row['step']:,}")
    return lines


def _scores(groups: Mapping[tuple[str, str], Sequence[Result]]) -> list[str]:
    lines = ["| task | metric | K | value | 95% interval | chance | questions |", "|---|---|---|---|---|---|---|"]
    for (title, metric), group in groups.items():
        for result in sorted(group, key=lambda result: result.shots):
            if result.value is None:
                continue
            interval = "" if result.low is None else f"{result.low:.3f} to {result.high:.3f}"
            chance = "" if result.chance is None else f"{result.chance:.3f}"
            cells = [_cell(title), metric, result.shots, f"{result.value:.3f}", interval, chance, f"{result.n:,}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _contamination(scores: Sequence[CleanDirtyScores]) -> list[str]:
    """Return scores over all questions and over those without an overlap with the training text."""
    if not scores:
        return [f"Contamination: {NOT_MEASURED} (fewshot contamination RUN)."]
    lines = ["Questions that stand in the training text:", "", "| task | K | all | clean | questions that are clean |"]
    lines += ["|---|---|---|---|---|"]
    for score in scores:
        values = ("" if part.value is None else f"{part.value:.3f}" for part in (score.all, score.clean))
        lines.append(f"| {score.task} | {score.shots} | {' | '.join(values)} | {100 * score.clean_share:.1f}% |")
    return lines


def _for_machines(result: Result) -> dict[str, Any]:
    """Return a result as the model-index of Hugging Face's cards has it."""
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": f"{title_of(result)}, {result.shots} demonstrations", "type": result.task},
        "metrics": [{"type": result.metric, "name": f"{result.metric}, K = {result.shots}", "value": result.value}],
    }


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
