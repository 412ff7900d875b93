"""A page holds nothing but what it was made to hold, whatever the values in it say, and replaces pages alone."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fewshot.checkpoint.load import load_run
from fewshot.cli.main import main
from fewshot.evaluate.reports.figures import metric_svg, page_styles
from fewshot.evaluate.reports.one_run import write_report
from fewshot.evaluate.reports.page import EvaluatedModel, by_metric
from fewshot.evaluate.reports.several_runs import write_several_runs
from fewshot.evaluate.result import Result, Sample
from fewshot.meta.curves import Curve, Measured, Point
from fewshot.meta.report import write_report as write_meta_report

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "figure", "figcaption", "pre"),
    *("table", "tr", "th", "td", "b", "br", "small", "code", "details", "summary"),
    *("svg", "defs", "g", "path", "use", "clippath", "rect", "text", "metadata", "rdf:rdf", "cc:work", "image"),
}
ATTRIBUTES = re.compile(
    r"class|type|charset|content|lang|name|style|id|d|x|y|transform|clip-path|width|height|viewbox|version|xmlns(:\w+)?|xlink:href"
)


class Strict(HTMLParser):
    """Says what is on a page that should not be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in TAGS:
            self.wrong.append(tag)
        for name, value in attrs:
            if not ATTRIBUTES.fullmatch(name):
                self.wrong.append(f"{tag} {name}")
            if name == "xlink:href" and not re.fullmatch(r"#[A-Za-z0-9_.-]+", value or ""):
                self.wrong.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")


def result(k: int, value: float = 0.5, **fields) -> Result:
    plain = {
        "task": "t",
        "paper_name": "",
        "protocol": "gpt3",
        "metric": "accuracy",
        "share": True,
        "shots": k,
        "shots_used": float(k),
        "n": 200,
        "n_skipped": 0,
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "ideal": None,
        "chance": 0.25,
        "seed": 0,
        "source": "words.txt",
    }
    return Result(**{**plain, **fields})


HOSTILE = {
    "a script in an attribute": 'acc"><script>alert(1)</script>',
    "a script in text": "<script>alert(1)</script>",
    "an event handler": 'x" onload="alert(1)',
    "an svg with a tab": 'x"><svg\tonload=alert(1)>',
    "single quotes": "x' onmouseover='alert(1)",
    "no quotes": "x onclick=alert(1) y",
    "a group of re.sub": r"\1\g<0>\g<1>",
    "a comment": "--><img src=x onerror=alert(1)><!--",
    "the end of a style": "</style></svg><iframe src=javascript:alert(1)>",
    "an entity": "&quot;&#62;<b onclick=1>&lt;",
    "a line break": 'a\n"\r><input autofocus onfocus=alert(1)>',
    "a formula": r"$\frac{1}{0$ $x^$",
    "a hidden name": "_nolegend_",
    "another alphabet": "\u02ba\uff1e\uff1cscript\uff1e\u202e",
    "a link": "javascript:alert(1)//](x)",
    "a zero byte": 'a\0"><script\0>',
    "half a surrogate pair": '\udc80"><embed>',
    "very long": '"><object>' * 500,
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_html_is_escaped_in_attributes_as_in_text(tmp_path, value):
    of_names = dict.fromkeys(("task", "protocol", "metric", "source", "paper_name"), value)
    sample = Sample(value, value, value, 0.0)
    results = [result(k, **of_names, samples=(sample,), questions=value) for k in (0, 1)]
    results += [result(0, **of_names, questions=f"other {value}")]
    model = EvaluatedModel(
        name=value,
        n_parameters=1000,
        summary={value: value},
        metrics=[{"tokens": 1.0, "loss": 2.0}, {"tokens": 2.0, "loss": 1.5}],
        results=results,
        samples=[(value, value)],
    )
    write_report(tmp_path / "report.html", model, title=value)
    other = replace(model, name=f"{value}2", n_parameters=10**9)
    write_several_runs(tmp_path / "runs.html", [replace(model, metrics=()), replace(other, metrics=())], title=value)
    points = tuple(Point(n_examples=k, n_steps=1, mean=0.5, low=0.4, high=0.6, n=9) for k in (1, 2))
    curve = Curve(learner=value, kind="weights", points=points)
    rows = [{"iteration": i, "loss": 1.0, value: 1.0} for i in (1, 2)]
    measured = Measured(tasks=value, quantity=value, curves=(curve,), history={value: rows}, about={value: value})
    write_meta_report(tmp_path / "meta.html", [measured], title=value)
    for name in ("report.html", "runs.html", "meta.html"):
        page = Strict((tmp_path / name).read_text(encoding="utf-8"))
        assert page.wrong == []
        assert len(set(page.ids)) == len(page.ids) > 0
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", one) for one in page.ids)


def test_report_refuses_a_file_of_others_before_it_loads_anything(tmp_path, capsys, set_in_module):
    (tmp_path / "thesis.html").write_text("mine")

    def loads(*args: object) -> None:
        raise AssertionError("a model was loaded")

    set_in_module(load_run, "load_run", loads)
    for runs in (["run"], ["run", "run2"]):
        assert main(["report", *runs, "--out", str(tmp_path / "thesis.html")]) == 2
        assert "was not written by fewshot" in capsys.readouterr().err
    assert (tmp_path / "thesis.html").read_text() == "mine"


def test_results_on_different_questions_are_lines_and_rows_of_their_own(tmp_path):
    a = [result(k, 0.2, questions="aaaa") for k in (0, 4)]
    b = [result(k, 0.9, questions="bbbb") for k in (0, 4)]
    fewer = [result(8, 0.5, questions="cccc", n=6)]
    assert [key for key, _ in by_metric([*a, *b, *fewer]).items()] == [
        ("t, 200 questions (aaaa)", "accuracy"),
        ("t, 200 questions (bbbb)", "accuracy"),
        ("t, 6 questions", "accuracy"),
    ]
    assert list(by_metric(a)) == [("t", "accuracy")]
    model = EvaluatedModel(name="r", n_parameters=9, results=[*a, *b], by_step={1: a, 2: b})
    write_report(tmp_path / "r.html", model, title="r")
    page = (tmp_path / "r.html").read_text()
    assert page.count("<figure>") == 2  # each against K; none against the step, as no set was asked at both
    assert "t, 200 questions (aaaa), accuracy" in page


def test_a_set_of_questions_without_a_digest_has_a_readable_name():
    known = result(0, questions="aaaa")
    former = [replace(known, questions="", source=source) for source in ("a.txt", "b.txt")]
    assert list(by_metric(former[:1])) == [("t", "accuracy")]
    assert [title for title, _ in by_metric([known, former[0]])] == [
        "t, 200 questions (aaaa)",
        "t, an unrecorded set of 200 questions",
    ]
    assert [title for title, _ in by_metric(former)] == [
        "t, an unrecorded set of 200 questions of a.txt",
        "t, an unrecorded set of 200 questions of b.txt",
    ]


def test_runs_that_were_asked_different_questions_are_not_joined_over_size(tmp_path):
    runs = [
        EvaluatedModel(name=name, n_parameters=n, results=[result(k, questions=asked) for k in (0, 1)])
        for name, n, asked in (("small", 10, "aaaa"), ("large", 1000, "bbbb"))
    ]
    write_several_runs(tmp_path / "runs.html", runs, title="runs")
    assert "against size" not in (tmp_path / "runs.html").read_text()
    same = [replace(run, results=[replace(one, questions="aaaa") for one in run.results]) for run in runs]
    write_several_runs(tmp_path / "runs.html", same, title="runs")
    assert "against size" in (tmp_path / "runs.html").read_text()


def test_figures_have_no_ground_of_their_own_and_only_wide_ones_keep_their_width(tmp_path):
    svg = metric_svg({"model": [(k, result(k)) for k in (0, 1)]}, "shots", page_styles())
    assert not re.search(r"fill: (#ffffff|white)", svg)
    model = EvaluatedModel(name="r", n_parameters=9, metrics=[{"tokens": i, "loss": 2.0} for i in (1, 2)])
    write_report(tmp_path / "r.html", replace(model, results=[result(0), result(1)]), title="r")
    page = (tmp_path / "r.html").read_text()
    assert page.count('<svg class="wide"') == 1  # the loss, not the accuracy
    assert "min-width: 40rem" in page
    assert "overflow-x: auto" in page
