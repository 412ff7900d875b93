"""One learner has one name, colour and marker in all figures; no line joins points of different kinds."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from measured_lines import BOUND, CONTEXT, FIRST, MAML, SECOND, curve

from fewshot.meta.curves import Measured, from_json
from fewshot.meta.figures import against_examples, against_flops, figures
from fewshot.meta.merge import grouped, merge
from fewshot.meta.names import LEARNERS, learner_styles
from fewshot.meta.report import Section, sections

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
IMAGES = RESULTS.parents[1] / "docs" / "images"
STORED = [RESULTS / "meta_sinusoid.json", *sorted(RESULTS.glob("meta_*.json"))]  # as docs/two-loops.md says


def drawn(*results: Measured) -> dict[str, str]:
    """Figures of results on the same tasks, by name."""
    (group,) = grouped(results).values()
    return {figure.name: figure.svg for figure in figures(merge(group), set(), learner_styles())}


@pytest.fixture(scope="module")
def stored() -> list[Section]:
    results = [from_json(json.loads(path.read_text()), where=path.name) for path in STORED]
    return list(sections(results))


def texts_of(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]+)</text>", svg)


def legend_of(svg: str) -> dict[str, str]:
    """Colour of each name in the legend."""
    legend = svg.partition('legend_1"')[2]
    samples = re.findall(r"<path d=\"[^\"]+\" [^>]*stroke: (#\w{6}|currentColor)", legend)
    names = texts_of(legend)
    return dict(zip(names, samples, strict=True))


def test_a_learner_has_one_colour_in_all_figures_of_the_stored_results(stored):
    colours = defaultdict(set)
    for section in stored:
        learners = [one.learner for one in section.merged.curves]
        for figure in section.figures:
            for name, colour in legend_of(figure.svg).items():
                learner = next((one for one in sorted(learners, key=len, reverse=True) if name.startswith(one)), None)
                if learner is not None:
                    colours[learner].add(colour)
    assert {"MAML", "in context", "prompt", "in-context tuning", "MAML, 10,000 iterations"} <= set(colours)
    assert {learner: len(seen) for learner, seen in colours.items() if len(seen) != 1} == {}


def test_no_two_learners_of_a_figure_have_the_same_colour(stored):
    for section in stored:
        for figure in section.figures:
            learners = [one.learner for one in section.merged.curves]
            by_colour = defaultdict(set)
            for name, colour in legend_of(figure.svg).items():
                of = [one for one in sorted(learners, key=len, reverse=True) if name.startswith(one)]
                by_colour[colour].update(of[:1])
            assert all(len(names) < 2 for names in by_colour.values()), (figure.name, by_colour)


def test_names_in_the_figures_of_stored_results_are_words(stored):
    for section in stored:
        for figure in section.figures:
            texts = texts_of(figure.svg)
            assert not [text for text in texts if re.search(r"_|\(\d+\)|as named|reader", text)], figure.name
            assert not set(texts) & set(LEARNERS)


def test_the_legends_of_stored_results_lie_above_their_axes(stored):
    for figure in itertools.chain.from_iterable(section.figures for section in stored):
        before, mark, legend = figure.svg.partition('legend_1"')
        if mark:
            axes = re.search(r'patch_2">\s*<path d="([^"]+)"', before)
            assert axes is not None
            top = min(float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", axes[1]))
            heights = re.findall(r"translate\(-?[\d.]+ ([\d.]+)\)|[ML] -?[\d.]+ ([\d.]+) ", legend)
            assert max(float(first or second) for first, second in heights) < top, figure.name


def test_the_images_of_the_documentation_are_figures_of_the_stored_results(stored):
    by_name = {figure.name: figure.svg for section in stored for figure in section.figures}
    images = list(IMAGES.glob("*.svg"))
    assert images
    for image in images:
        drawn_now = by_name[image.stem]
        assert texts_of(image.read_text()) == texts_of(drawn_now), image.name


def test_results_on_the_same_tasks_are_drawn_together():
    assert list(drawn(FIRST, SECOND)) == [
        "lines-examples",
        "lines-steps",
        "lines-flops",
        "lines-loss",
        "lines-in-context-phases",
    ]


def test_no_line_joins_what_is_known_before_any_step_with_what_is_after_some():
    sinusoid = curve("MAML", "weights", {(0, 0): 3.0, (5, 1): 0.8, (5, 10): 0.4, (6, 1): 0.7, (6, 10): 0.3})
    lines = list(against_examples([sinusoid], learner_styles()))
    assert [(line.label, list(line.x)) for line in lines] == [("MAML, 10 steps", [5, 6]), ("MAML, 0 steps", [0])]
    one_step = curve("MAML", "weights", {(0, 0): 3.0, (5, 1): 0.8, (6, 1): 0.7})
    assert [list(line.x) for line in against_examples([one_step], learner_styles())] == [[5, 6], [0]]
    assert [list(line.x) for line in against_examples([CONTEXT], learner_styles())] == [[1, 2, 4]]


def test_every_line_of_stored_results_is_of_one_number_of_steps_or_of_a_chosen_one(stored):
    for one in itertools.chain.from_iterable(section.merged.curves for section in stored):
        if len(one.points) == len({p.n_examples for p in one.points}):
            continue
        steps = {(p.n_examples, p.mean): p.n_steps for p in one.points}
        for line in against_examples([one], learner_styles()):
            assert len({steps[point] for point in zip(line.x, line.y, strict=True)}) == 1


def test_flops_of_different_numbers_of_steps_are_on_lines_of_their_own():
    context, maml = replace(CONTEXT, learner="in context"), replace(MAML, learner="MAML")
    lines = list(against_flops([context, maml], learner_styles()))
    assert [(line.label, len(line.x)) for line in lines] == [
        ("in context", 3),
        ("MAML, 1 step", 2),
        ("MAML, 5 steps", 2),
    ]
    assert lines[1].style == lines[2].style != lines[0].style
    assert lines[1].fill != lines[2].fill


def test_what_a_loop_reports_is_labelled_in_words_and_a_rule_looks_as_it_does_elsewhere():
    rows = [{"iteration": i, "loss": 1.0, "kl_bigram": 2.0, "kl_uniform": 1.0} for i in (1, 2)]
    curves = (CONTEXT, replace(BOUND, learner="bigram"), replace(BOUND, learner="uniform", kind="baseline"))
    by_name = drawn(replace(FIRST, curves=curves, history={"context": rows}))
    phases = by_name["lines-in-context-phases"]
    assert "KL divergence (nats)" in phases
    assert "kl_" not in phases
    over_examples = legend_of(by_name["lines-examples"])
    assert legend_of(phases) == {name: over_examples[name] for name in ("bigram counts", "uniform guess")}
    errors = [{"iteration": i, "loss": 1.0, "error_0": 2.0, "error_5": 1.0} for i in (1, 2)]
    phases = drawn(replace(FIRST, history={"context": errors}))["lines-in-context-phases"]
    assert set(legend_of(phases)) == {"after 0 examples", "after 5 examples"}
    assert set(legend_of(phases).values()) == {over_examples["in context"]}
    assert ">error<" in phases


def test_loops_of_several_seeds_are_named_once():
    rows = [{"iteration": i, "loss": 1.0} for i in (1, 2)]
    loss = drawn(replace(SECOND, history={"maml_0": rows, "maml_1": rows, "reader_0": rows}))["lines-loss"]
    assert list(legend_of(loss)) == ["MAML", "in-context tuning"]


def test_of_several_seeds_one_shows_how_its_outer_loop_went():
    rows = FIRST.history["context"]
    several = replace(FIRST, history={"context_0": rows, "context_1": rows})
    phases = [name for name in drawn(several) if name.endswith("phases")]
    assert phases == ["lines-in-context-seed-0-phases"]
