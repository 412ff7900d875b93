"""A page holds nothing but what it was made to hold, whatever the values in it say, and replaces pages alone."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fewshot.base.errors import BadFile
from fewshot.cli.main import main
from fewshot.evaluate.reports.figures import as_id, measure_svg
from fewshot.evaluate.reports.one_run import write_report
from fewshot.evaluate.reports.page import MARKER, Learner, by_metric, write_page
from fewshot.evaluate.reports.several_runs import write_lab
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
    learner = Learner(
        name=value,
        n_parameters=1000,
        summary={value: value},
        metrics=[{"tokens": 1.0, "loss": 2.0}, {"tokens": 2.0, "loss": 1.5}],
        results=results,
        samples=[(value, value)],
    )
    write_report(tmp_path / "report.html", learner, title=value)
    other = replace(learner, name=f"{value}2", n_parameters=10**9)
    write_lab(tmp_path / "lab.html", [replace(learner, metrics=()), replace(other, metrics=())], title=value)
    points = tuple(Point(n_examples=k, n_steps=1, mean=0.5, low=0.4, high=0.6, n=9) for k in (1, 2))
    curve = Curve(learner=value, kind="weights", points=points)
    rows = [{"iteration": i, "loss": 1.0, value: 1.0} for i in (1, 2)]
    measured = Measured(tasks=value, quantity=value, curves=(curve,), history={value: rows}, about={value: value})
    write_meta_report(tmp_path / "meta.html", [measured], title=value)
    for name in ("report.html", "lab.html", "meta.html"):
        page = Strict((tmp_path / name).read_text(encoding="utf-8"))
        assert page.wrong == []
        assert len(set(page.ids)) == len(page.ids) > 0
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", one) for one in page.ids)


def test_ids_of_different_names_differ():
    names = ["a b", "a.b", "a/b", "a\tb", "a:b", "a<b", 'a"b', "a_b", "é", "ü", "", " "]
    assert len({as_id(name) for name in names}) == len(names)
    assert as_id("loss-train_1") == "loss-train_1"  # a name that may be an id is one


def test_a_page_is_replaced_by_a_page_and_no_other_file_is(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "one", [])
    write_page(path, "two", [])
    assert MARKER in path.read_text()
    assert "<title>two" in path.read_text()


FOREIGN = {
    "a thesis": b"<html><body>my thesis</body></html>",
    "text": b"hello",
    "a binary file": bytes(range(256)),
    "another doctype": b'<!doctype html>\n<html lang="de">\n<head>',
    "a page that quotes the mark": f"<p>{MARKER}</p>".encode(),
    "JSON": b'{"results": []}',
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_others_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "mine.html"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=r"mine\.html exists and was not written by fewshot: give another --out"):
        write_page(path, "title", [])
    assert path.read_bytes() == content


def test_a_new_an_empty_and_a_linked_page_and_one_from_before_the_mark_are_written(tmp_path):
    (tmp_path / "empty.html").touch()
    write_page(tmp_path / "target.html", "old", [])
    (tmp_path / "link.html").symlink_to("target.html")
    page = (tmp_path / "target.html").read_text()
    (tmp_path / "former.html").write_text(page.replace(f"{MARKER}\n", ""))
    for name in ("empty.html", "link.html", "former.html", "folder/new.html"):
        write_page(tmp_path / name, "new", [])
        assert "<title>new" in (tmp_path / name).read_text()
    assert (tmp_path / "link.html").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_report_refuses_a_file_of_others_before_it_loads_anything(tmp_path, capsys, monkeypatch):
    (tmp_path / "thesis.html").write_text("mine")

    def loads(*args: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("fewshot.checkpoint.load.load_run", loads)
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
    learner = Learner(name="r", n_parameters=9, results=[*a, *b], by_step={1: a, 2: b})
    write_report(tmp_path / "r.html", learner, title="r")
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
        Learner(name=name, n_parameters=n, results=[result(k, questions=asked) for k in (0, 1)])
        for name, n, asked in (("small", 10, "aaaa"), ("large", 1000, "bbbb"))
    ]
    write_lab(tmp_path / "lab.html", runs, title="lab")
    assert "against size" not in (tmp_path / "lab.html").read_text()
    same = [replace(run, results=[replace(one, questions="aaaa") for one in run.results]) for run in runs]
    write_lab(tmp_path / "lab.html", same, title="lab")
    assert "against size" in (tmp_path / "lab.html").read_text()


def test_figures_have_no_ground_of_their_own_and_only_wide_ones_keep_their_width(tmp_path):
    svg = measure_svg({"model": [(one.shots, one) for one in (result(0), result(1))]}, "shots")
    assert not re.search(r"fill: (#ffffff|white)", svg)
    learner = Learner(name="r", n_parameters=9, metrics=[{"tokens": i, "loss": 2.0} for i in (1, 2)])
    write_report(tmp_path / "r.html", replace(learner, results=[result(0), result(1)]), title="r")
    page = (tmp_path / "r.html").read_text()
    assert page.count('<svg class="wide"') == 1  # the loss, not the accuracy
    assert "min-width: 40rem" in page
    assert "overflow-x: auto" in page
