from __future__ import annotations

from pathlib import Path

import numpy as np
from circuits import induction_model
from test_findings import A, B, C, findings, scored, solved

from fewshot.probe.findings import Findings, StepFindings
from fewshot.probe.page import heatmap_svg, in_words, write_probe
from fewshot.probe.recording import weights_of
from fewshot.probe.scores import score_heads


def test_words_name_the_copying_head_and_what_its_loss_costs():
    both = findings(tasks=[solved("first", 1.0, 0.2, 0.1, 0.99), solved("later", 0.9, 0.1, 0.88, 0.4)])
    words = in_words(both)
    assert "The copying head is L1H0 (dense): induction score 0.900, chance 0.050." in words
    assert "Without it: first from 1.000 to 0.100, later from 0.900 to 0.880." in words
    assert "The other way round L1H1: later from 0.900 to 0.400, first from 1.000 to 0.990." in words


def test_words_say_when_no_head_copies():
    weak = Findings(model="run", step=1, scored_on="", heads=[scored(A, 0.2), scored(B, 0.3)])
    assert in_words(weak).startswith("No head copies: the highest is L1H0 (dense), induction score 0.300")


def test_the_page_shows_every_head_the_tasks_and_the_steps(tmp_path: Path):
    model, text = induction_model(n_layers=2, pattern="alternate(banded(2), dense)"), [3, 1, 4, 1, 5, 3, 1]
    heads = score_heads(model, [text])
    tasks = [solved("first <b>", 1.0, 0.2, 0.1, 0.99)]
    shown = {"heads": heads, "accuracy": {"first <b>": 0.5}, "distances": {"copying": 0.123}}
    steps = [StepFindings(step=step, **shown) for step in (10, 20)]
    both = Findings(model="a & b", step=20, scored_on="on x", heads=heads, tasks=tasks, steps=steps)
    path = tmp_path / "probe.html"
    weights = weights_of(model, text)
    write_probe(path, both, text="3 < 1", weights=weights, schedule=model.config.schedule())
    page = path.read_text()
    assert "fewshot probe: a &amp; b" in page
    assert "first &lt;b&gt;" in page
    assert "<pre>3 &lt; 1</pre>" in page
    assert "L0H0, banded(2): induction" in page
    assert "L1H0, dense: induction" in page
    assert page.count("<image") == 2
    assert page.count('<svg class="wide"') + page.count("<svg ") >= 4
    assert "http" not in page.replace("http://www.w3.org", "")
    assert str(C) in page
    assert "simple readers" in page
    assert "0.123" in page


def test_a_heatmap_tints_what_may_be_read_and_leaves_the_rest_empty(monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.imshow", lambda axes, image, **_: drawn.append(image))
    heatmap_svg(np.array([[1.0, 0.0], [0.0, 0.5]]), np.tri(2, dtype=bool), name="x")
    opacity = drawn[0][..., 3]
    assert opacity[0, 1] == 0 < opacity[1, 0] < opacity[1, 1] < opacity[0, 0] == 1
