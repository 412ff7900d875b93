from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_results import make

from fewshot.evaluate.reports.figures import loss_svg, metric_svg, page_styles
from fewshot.evaluate.reports.one_run import write_report
from fewshot.evaluate.reports.page import EvaluatedModel, by_setting
from fewshot.evaluate.result import Sample
from fewshot.evaluate.scoring.loss_by_position import PositionLoss
from fewshot.report.chart import INK

METRICS = [
    {"step": i, "tokens": 512 * i, "loss": 4 - i / 10, "val_loss": 4.0 if i % 5 == 0 else None} for i in range(20)
]
CURVE = [
    make(k, value, samples=(Sample(f"a = b\n<{k}> =", " c & d", " q", 0.0),))
    for k, value in ((0, 0.07), (1, 0.11), (2, 0.2), (4, 0.3), (8, 0.5), (16, 0.95))
]
PERPLEXITY = [
    make(k, value, task="lambada", paper_name="LAMBADA", metric="perplexity", share=False, ideal=None, chance=None)
    for k, value in ((0, 31.5), (1, 40.25))
]


POSITIONS = [
    PositionLoss(first=first, last=last, n=10, nats=nats, low=nats - 0.1, high=nats + 0.1)
    for first, last, nats in ((1, 1, 4.0), (2, 3, 3.0), (4, 7, 2.5))
]


class Tags(HTMLParser):
    """Counts tags and checks that those which must be closed are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path: Path) -> str:
    model = EvaluatedModel(
        name="run",
        n_parameters=1_234_567,
        summary={"parameters": "1,234", "optimizer": "AdamW & co"},
        metrics=METRICS,
        results=[*CURVE, *PERPLEXITY],
        by_step={100: [make(0, 0.06), make(8, 0.06)], 200: CURVE},
        positions=POSITIONS,
        samples=[("Once upon", " a time <b>")],
    )
    write_report(tmp_path / "report.html", model, title="A run <1>")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_holds_every_figure_table_and_sample(page):
    tags = Tags(page)
    assert tags.open == []
    assert (
        tags.counts["figure"] == tags.counts["svg"] == 5
    )  # loss, position, accuracy and perplexity over K, accuracy over steps
    assert tags.counts["table"] == 2
    for text in ("A run &lt;1&gt;", "AdamW &amp; co", "Once upon<b> a time &lt;b&gt;</b>", "&lt;16&gt; =", "c &amp; d"):
        assert text in page
    assert "95.0<br><small>90.0 to 100.0</small>" in page
    assert "31.50" in page
    assert "lambada (LAMBADA)" in page


def test_the_page_loads_nothing_and_shows_in_light_and_dark(page):
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page)
    assert all(address.startswith("#") for address in addresses)
    assert "<script" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert INK not in page
    assert "currentColor" in page


def test_ids_of_one_figure_do_not_meet_those_of_another(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def words(svg: str) -> list[str | None]:
    return [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_curve_over_shots_names_each_k_the_ideal_learner_and_chance():
    points = {"model": [(result.shots, result) for result in CURVE]}
    svg = metric_svg(points, "shots", page_styles())
    texts = words(svg)
    for expected in ("0", "1", "2", "4", "8", "16", "ideal learner", "chance", "model"):
        assert expected in texts
    assert svg == metric_svg(points, "shots", page_styles())


def test_the_loss_curve_shows_validation_only_where_it_was_measured():
    assert "validation" in loss_svg(METRICS)
    assert "validation" not in loss_svg([{**row, "val_loss": None} for row in METRICS])


def test_a_question_that_never_fitted_is_a_dash_and_fewer_shots_are_said(tmp_path):
    results = [make(0, None, n=0, n_skipped=7), make(16, 0.5, shots_used=9.25)]
    write_report(tmp_path / "r.html", EvaluatedModel(name="r", n_parameters=9, results=results), title="r")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<td>–</td>" in page
    assert "9.2 shots" in page
    assert "(7 too long)" in page
    assert "Training" not in page
    assert "<svg" not in page  # one point is no curve


def cells(page: str, task: str) -> list[str]:
    """Of the table of results, the row of a task, small print in brackets."""
    row = next(row for row in re.findall(r"<tr>(.*?)</tr>", page) if f"<td>{task}</td>" in row)
    return [
        re.sub(r"</?small>", "", cell).replace("<br>", " | ")
        for cell in re.findall(r"<td(?: class=\w+)?>(.*?)</td>", row)
    ]


def test_the_papers_nearest_size_stands_beside_ones_own_scores(tmp_path):
    fields = {"task": "hellaswag", "paper_name": "HellaSwag", "ideal": None}
    results = [make(0, 0.3, **fields), make(20, 0.31, **fields), *PERPLEXITY, make(0, 0.1)]
    theirs = [make(0, 0.3, **{**fields, "protocol": "lm-eval", "metric": "acc"})]
    model = EvaluatedModel(name="r", n_parameters=300_000_000, results=[*results, *theirs])
    write_report(tmp_path / "r.html", model, title="r")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<th>GPT-3 350M<br><small>zero / one / few</small></th>" in page
    assert cells(page, r"hellaswag (HellaSwag)")[-2:] == ["43.6 / 42.9 / 43.1 | K = 20", "200"]
    assert cells(page, r"lambada (LAMBADA)")[-2] == "9.09 / 11.6 / 27.6 | K = 15"
    assert cells(page, "novel_symbols")[-2] == ""  # not in the paper
    assert cells(page, "hellaswag (HellaSwag), lm-eval")[-2] == ""  # measured in another way


def test_results_of_several_seeds_are_one_cell_with_their_spread(tmp_path):
    results = [make(4, value, seed=seed) for seed, value in enumerate((0.4, 0.5, 0.6))]
    write_report(tmp_path / "r.html", EvaluatedModel(name="r", n_parameters=9, results=results), title="r")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert cells(page, "novel_symbols")[2:] == ["50.0 | 45.0 to 55.0 | ± 24.8 over 3 seeds", "200"]


def test_few_shots_are_the_papers_k_where_it_was_measured_else_the_most():
    fields = {"task": "hellaswag", "paper_name": "HellaSwag"}
    with_k = by_setting([make(k, 0.5, **fields) for k in (0, 1, 4, 20, 30)])
    assert {kind: one.shots for kind, one in with_k.items()} == {"zero": 0, "one": 1, "few": 20}
    assert by_setting([make(k, 0.5, **fields) for k in (1, 4, 30)])["few"].shots == 30
    assert list(by_setting([make(0, 0.5), make(4, None)])) == ["zero"]
