"""The page of a probe. In: findings, and the attention of one text. Out: HTML with charts, heatmaps and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot.patterns.layout import mask
from fewshot.patterns.schedule import Schedule
from fewshot.probe.findings import COPIES, SPARED, Findings
from fewshot.probe.readers import READERS
from fewshot.probe.scores import KINDS, HeadScores
from fewshot.report.chart import BLUE, GREY, Line, Style, Styles, lines_svg, new_axes, to_svg
from fewshot.report.html import in_figure, plain_table, side_by_side, write_page

MOST_DRAWN = 160  # tokens of a text whose attention is drawn: a pixel a token
SMALL = "grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr))"  # columns of heatmaps
COPYING = Style(GREY, "s", "--")
FAINT = 0.10  # how strong a key is drawn that may be read, and is not


def write_probe(
    path: Path, findings: Findings, *, text: str, weights: Sequence[Float[Tensor, "H T S"]], schedule: Schedule
) -> None:
    """Write the page; `weights` is the attention of each layer for `text`. Raises as `write_page` does."""
    parts = [
        f"<p>{escape(in_words(findings))}</p>",
        "<h2>What each head does</h2>",
        f"<p>Scores {escape(findings.scored_on)}: how much of its attention a head gives to the position before "
        "(previous), to earlier positions with the same token (same), and to the positions just behind these "
        "(induction: what may come next). In brackets the score of a head that reads all its pattern allows alike.</p>",
        plain_table(score_rows(findings.heads), ("head", "pattern", *KINDS)),
        *_tasks(findings),
        *_steps(findings),
        "<h2>Attention of one text</h2>",
        "<p>Rows are queries, columns are keys, the first token above left; what the pattern allows is tinted.</p>",
        f'<div class="figures" style="{SMALL}">{"".join(_heatmaps(findings, weights, schedule))}</div>',
        f"<pre>{escape(text)}</pre>",
    ]
    write_page(path, f"fewshot probe: {findings.model}", parts)


def in_words(findings: Findings) -> str:
    """Return the findings in a sentence or two."""
    copying = findings.copying
    score, chance = copying.scores["induction"], copying.chance["induction"]
    numbers = f"induction score {score:.3f}, chance {chance:.3f}"
    if not findings.copies:
        return f"No head copies: the highest is {copying.head} ({copying.pattern}), {numbers}; {COPIES} is asked for."
    words = [f"The copying head is {copying.head} ({copying.pattern}): {numbers}."]
    without = [
        f"{task.task} from {task.accuracy:.3f} to {task.ablated[copying.head]:.3f}"
        for task in findings.tasks
        if copying.head in task.ablated
    ]
    if without:
        words.append(f"Without it: {', '.join(without)}.")
    if findings.opposite is not None:
        head, task = findings.opposite
        first = findings.tasks[0]
        words.append(
            f"The other way round {head}: {task.task} from {task.accuracy:.3f} to {task.ablated[head]:.3f}, "
            f"{first.task} from {first.accuracy:.3f} to {first.ablated[head]:.3f}."
        )
    return " ".join(words)


def score_rows(heads: Sequence[HeadScores]) -> list[list[str]]:
    """Return a row for each head: its name, pattern and scores with their chance levels."""
    return [
        [str(head.head), head.pattern, *(f"{head.scores[kind]:.3f} ({head.chance[kind]:.3f})" for kind in KINDS)]
        for head in heads
    ]


def ablation_rows(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """Return (columns, rows): accuracy of each task by the whole model, then without each head."""
    columns = ["without", *(f"{task.task}, K = {task.shots}" for task in findings.tasks)]
    rows = [["(nothing)", *(f"{task.accuracy:.3f}" for task in findings.tasks)]]
    for head in findings.tasks[0].ablated if findings.tasks else ():
        rows.append([str(head), *(f"{task.ablated[head]:.3f}" for task in findings.tasks)])
    return columns, rows


def step_rows(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """Return (columns, rows) at each checkpoint: score of the copying head, accuracies, distances from readers."""
    names = [task.task for task in findings.tasks]
    readers = list(findings.steps[-1].distances)
    columns = ["step", f"{findings.copying.head} induction", *names, *(f"from {reader}" for reader in readers)]
    return columns, [
        [
            f"{step.step:,}",
            f"{score:.3f}",
            *(f"{step.accuracy[name]:.3f}" for name in names),
            *(f"{step.distances[reader]:.3f}" for reader in readers),
        ]
        for step, score in zip(findings.steps, findings.copying_by_step(), strict=True)
    ]


def _tasks(findings: Findings) -> Iterator[str]:
    if findings.tasks:
        columns, rows = ablation_rows(findings)
        questions = ", ".join(f"{task.task}: {task.n:,} questions" for task in findings.tasks)
        yield "<h2>What the tasks need</h2>"
        yield (
            "<p>Accuracy without one head, which gives its mean over all positions of the task's prompts instead "
            f"({escape(questions)}). A task that loses less than {SPARED} does without the head.</p>"
        )
        yield plain_table(rows, columns)


def rise_in_words(findings: Findings) -> str:
    """Return when the copying head's score and the first task's accuracy rose; there must be steps and a task."""
    task, copying = findings.tasks[0], findings.copying
    score, accuracy = findings.rise(findings.copying_by_step()), findings.rise(findings.accuracy_by_step(task))
    return (
        f"{copying.head}'s induction score reaches half of its height at step {score:,}, "
        f"the accuracy of {task.task} (K = {task.shots}) at step {accuracy:,}."
    )


def rise_figure(findings: Findings) -> str:
    """Return the figure of the copying head's score and the accuracy of each task against the training step."""
    steps, styles = [step.step for step in findings.steps], Styles({"induction": COPYING})
    lines = [Line(label=f"{findings.copying.head} induction", x=steps, y=findings.copying_by_step(), style=COPYING)]
    lines += [
        Line(
            label=f"{task.task} K={task.shots}",
            x=steps,
            y=findings.accuracy_by_step(task),
            style=styles.of(task.task),
        )
        for task in findings.tasks
    ]
    svg = lines_svg(lines, name="together", x_label="training step", y_label="score, accuracy")
    return in_figure("the copying head's score and accuracy", svg)


def heads_figure(findings: Findings) -> str:
    """Return the figure of the induction score of each head against the training step."""
    styles = Styles()
    lines = [
        Line(
            label=str(head.head),
            x=[step.step for step in findings.steps],
            y=[step.heads[place].scores["induction"] for step in findings.steps],
            style=styles.of(str(head.head)),
        )
        for place, head in enumerate(findings.heads)
    ]
    svg = lines_svg(lines, name="heads", x_label="training step", y_label="induction score")
    return in_figure("induction score of each head", svg)


def _readers_figure(findings: Findings) -> str:
    steps, styles = [step.step for step in findings.steps], Styles({READERS[-1]: COPYING})
    lines = [
        Line(label=name, x=steps, y=[step.distances[name] for step in findings.steps], style=styles.of(name))
        for name in findings.steps[-1].distances
    ]
    svg = lines_svg(lines, name="readers", x_label="training step", y_label="distance")
    return in_figure("how far its predictions are from those of simple readers", svg)


def _steps(findings: Findings) -> Iterator[str]:
    if len(findings.steps) < 2:
        return
    figures = [heads_figure(findings)]
    yield "<h2>Over training</h2>"
    if findings.tasks:
        yield f"<p>{escape(rise_in_words(findings))}</p>"
        figures.append(rise_figure(findings))
    if findings.steps[-1].distances:
        figures.append(_readers_figure(findings))
    yield side_by_side(figures)
    columns, rows = step_rows(findings)
    yield plain_table(rows, columns)


def _heatmaps(findings: Findings, weights: Sequence[Float[Tensor, "H T S"]], schedule: Schedule) -> Iterator[str]:
    for scored in findings.heads:
        layer, head = scored.head.layer, scored.head.head
        n = min(MOST_DRAWN, weights[layer].shape[1])
        svg = heatmap_svg(
            weights[layer][head, :n, :n].float().cpu().numpy(),
            mask(schedule.for_layer(layer), n, n, head=head),
            name=f"attention-{scored.head}",
        )
        yield in_figure(f"{scored.head}, {scored.pattern}: induction {scored.scores['induction']:.3f}", svg)


def heatmap_svg(values: Float[np.ndarray, "T S"], allowed: Bool[np.ndarray, "T S"], *, name: str) -> str:
    """Return a picture of weights from 0 to 1 over the keys that may be read."""
    figure, axes = new_axes(width=2.6, height=2.6)
    colour = [int(BLUE[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    image = np.empty((*values.shape, 4))
    image[..., :3] = colour
    image[..., 3] = np.where(allowed, FAINT + (1 - FAINT) * values, 0.0)
    axes.imshow(image, interpolation="nearest")
    axes.grid(visible=False)
    return to_svg(figure, axes, name)
