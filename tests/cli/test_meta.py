"""Help pages, and results that somebody else made: nothing in them runs in a page, and no result is one line."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.config import to_plain
from fewshot.cli.main import main
from fewshot.cli.meta import TASKS
from fewshot.meta.curves import Curve, Measured, Point, to_json
from fewshot.meta.experiment import EXPERIMENTS


def result() -> dict[str, Any]:
    points = tuple(
        Point(n_examples=k, n_steps=n, flops=10.0 * (k + n + 1), mean=0.5, low=0.4, high=0.6, n=3)
        for k in (1, 2)
        for n in (0, 1)
    )
    learned = Curve(learner="maml", kind="weights", points=points, training_flops=5.0)
    rows = [{"iteration": 1, "loss": 2.0, "kl_bigram": 1.0}, {"iteration": 2, "loss": 1.0, "kl_bigram": 0.5}]
    plain = to_json(
        Measured(
            tasks="waves", quantity="error", curves=(learned,), history={"maml": rows}, about={"settings": {"a": 1}}
        )
    )
    return json.loads(json.dumps(plain))


class Elements(HTMLParser):
    """What a browser would run, and whether ids and what they are asked for by are sound."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    handle_startendtag = handle_starttag


KNOWN = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "code", "div", "figure", "figcaption",
         "svg", "g", "path", "defs", "use", "text", "tspan", "rect", "clippath", "image", "details", "summary", "pre",
         "table", "tr", "th", "td", "metadata"}  # fmt: skip


def check_page(page: Path) -> None:
    elements = Elements()
    elements.feed(page.read_text(encoding="utf-8"))
    assert elements.tags <= KNOWN
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert not [value for _, value in elements.attributes if "javascript:" in value.lower()]
    ids = [value for name, value in elements.attributes if name == "id"]
    assert ids
    assert all(re.fullmatch(r"[\w.:-]+", value) for value in ids)


HOSTILE = (
    "<script>alert(1)</script>",
    'x"><script>alert(1)</script>',
    "x' onload='alert(1)",
    'x"><svg\tonload=alert(1)>',
    "</style><script>alert(1)</script>",
    "</title></summary></pre></details><img src=x onerror=alert(1)>",
    "<!-- ",
    "]]><a href='javascript:alert(1)'>",
    "\\1\\g<1> & &lt;",
    "$\\frac{1}{$ and $x$",
    "_hidden",
    "../../etc/passwd",
    "two\nlines",
    " ",
)
PLACES = (
    lambda plain, text: plain.update(tasks=text, quantity=text),
    lambda plain, text: plain["curves"][0].update(learner=text, tasks=text),
    lambda plain, text: [row.update({text: row.pop("kl_bigram")}) for row in plain["history"]["maml"]],
    lambda plain, text: plain["history"].update({text: plain["history"].pop("maml")}),
    lambda plain, text: plain["about"].update(settings={text: text, "data": {"path": text}}),
)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_a_result_runs_in_a_page(text, tmp_path):
    plain = result()
    for put in PLACES:
        put(plain, text)
    (tmp_path / "result.json").write_text(json.dumps(plain))
    page, folder = tmp_path / "page.html", tmp_path / "figures"
    assert main(["meta", "report", str(tmp_path / "result.json"), "--out", str(page), "--figures", str(folder)]) == 0
    check_page(page)
    drawn = list(folder.iterdir())
    assert len(drawn) == 5
    assert all(re.fullmatch(r"[\w.-]+\.svg", path.name) for path in drawn)
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "page.html", "figures"}


def _set(*keys: Any, to: Any) -> Any:
    def change(plain: dict[str, Any]) -> None:
        for key in keys[:-1]:
            plain = plain[key]
        plain[keys[-1]] = to

    return change


def _drop(*keys: Any) -> Any:
    def change(plain: dict[str, Any]) -> None:
        for key in keys[:-1]:
            plain = plain[key]
        del plain[keys[-1]]

    return change


POINT = ("curves", 0, "points", 0)
WRONG = {
    "a mean that is no number": _set(*POINT, "mean", to=float("nan")),
    "an infinite mean": _set(*POINT, "mean", to=float("inf")),
    "a mean outside of its interval": _set(*POINT, "mean", to=0.965),
    "an interval the wrong way round": _set(*POINT, "low", to=0.7),
    "a mean as a list": _set(*POINT, "mean", to=[0.5]),
    "a mean as words": _set(*POINT, "mean", to="much"),
    "a negative number of examples": _set(*POINT, "n_examples", to=-1),
    "half an example": _set(*POINT, "n_examples", to=1.5),
    "negative steps": _set(*POINT, "n_steps", to=-3),
    "no tasks": _set(*POINT, "n", to=0),
    "more examples than there are numbers": _set(*POINT, "n_examples", to=10**400),
    "negative FLOPs": _set(*POINT, "flops", to=-1.0),
    "infinite FLOPs": _set(*POINT, "flops", to=float("inf")),
    "FLOPs of training that are no number": _set("curves", 0, "training_flops", to=float("nan")),
    "a learner that is a list": _set("curves", 0, "learner", to=["maml"]),
    "tasks that are keys": _set("tasks", to={"a": 1}),
    "a quantity of nothing": _set("quantity", to=None),
    "points as a word": _set("curves", 0, "points", to="abc"),
    "points that are numbers": _set("curves", 0, "points", to=[1, 2]),
    "curves as keys": _set("curves", to={"maml": 1}),
    "more_is_better as a word": _set("more_is_better", to="perhaps"),
    "a history row that lacks a figure": _drop("history", "maml", 1, "kl_bigram"),
    "a history with NaN": _set("history", "maml", 1, "loss", to=float("nan")),
    "a history that says true": _set("history", "maml", 1, "loss", to=True),
    "a history without end": _set("history", "maml", 1, "loss", to=10**400),
    "nothing": lambda plain: plain.clear(),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_no_result_is_one_line_that_names_the_file(change, tmp_path, capsys):
    plain = result()
    change(plain)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(plain))
    assert main(["meta", "report", str(path), "--out", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert "result.json" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"tasks": ' * 100_000, "1" * 5000, "{", "", "null", "[]"])
def test_a_file_of_something_else_is_one_line(text, tmp_path, capsys):
    (tmp_path / "result.json").write_text(text)
    assert main(["meta", "report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert "result.json" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("change", [_set("curves", to=[]), _set("curves", 0, "points", to=[]), _set("history", to={}),
                                    _set("about", to={}), _set("history", "maml", to=[]),
                                    _set(*POINT, "flops", to=None)])  # fmt: skip
def test_a_result_that_holds_little_is_shown(change, tmp_path):
    plain = copy.deepcopy(result())
    change(plain)
    (tmp_path / "result.json").write_text(json.dumps(plain))
    assert main(["meta", "report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0


def test_two_groups_whose_names_differ_in_signs_have_figures_of_their_own(tmp_path):
    for number, tasks in enumerate(("a b", "a-b", "a/b")):
        (tmp_path / f"{number}.json").write_text(json.dumps({**result(), "tasks": tasks}))
    files = [str(tmp_path / f"{number}.json") for number in range(3)]
    words = ["--out", str(tmp_path / "page.html"), "--figures", str(tmp_path / "figures")]
    assert main(["meta", "report", *files, *words]) == 0
    names = [path.name for path in (tmp_path / "figures").iterdir()]
    assert len(names) % 3 == 0
    assert len(names) == (tmp_path / "page.html").read_text().count("<figure>")


def fields(plain: dict[str, Any], above: str = "") -> set[str]:
    """The dotted names of all fields of a configuration."""
    nested = {key: value for key, value in plain.items() if isinstance(value, dict)}
    names = {f"{above}{key}" for key in plain.keys() - nested.keys()}
    return names.union(*(fields(value, f"{above}{key}.") for key, value in nested.items()))


@pytest.mark.parametrize("kind", TASKS)
def test_every_field_of_a_kind_is_listed_with_its_default(kind, capsys):
    assert main(["meta", kind, "--fields"]) == 0
    page = capsys.readouterr().out
    listed = dict(re.findall(r"^  --([\w.]+) (\S+)", page, re.MULTILINE))
    assert listed.keys() == fields(to_plain(EXPERIMENTS[kind][0]()))
    assert listed["outer.n_iterations"] == str(EXPERIMENTS[kind][0]().outer.n_iterations)
    assert "of the gradient" in page


def test_the_help_says_how_fields_are_listed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["meta", "sinusoid", "--help"])
    assert end.value.code == 0
    assert "--fields" in capsys.readouterr().out
