from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from measured_lines import BOUND, CONTEXT, FIRST, MAML, SECOND, curve

from fewshot.base.files import write_json
from fewshot.cli.main import main
from fewshot.meta.curves import Curve, Measured, point, to_json
from fewshot.meta.merge import grouped, merge
from fewshot.meta.report import markdown_tables, pivot, sections, winners


def test_the_best_learner_is_named_with_whether_the_intervals_are_apart():
    (group,) = grouped([FIRST, SECOND]).values()
    assert winners(merge(group)) == [(1, "MAML", "in context", False), (2, "MAML", "in context", False)]
    narrow = Measured(
        tasks="words",
        quantity="accuracy",
        more_is_better=True,
        curves=(curve("a", "context", {(3, 0): 0.5}, 1e-4), curve("b", "weights", {(3, 1): 0.7}, 1e-4), BOUND),
    )
    assert winners(narrow) == [(3, "b", "a", True)]


def test_sorts_of_tasks_within_one_result_have_winners_of_their_own():
    sorts = replace(FIRST, curves=(replace(CONTEXT, tasks="a"), replace(MAML, tasks="b"), replace(CONTEXT, tasks="b")))
    first, second = sections([sorts])
    assert (first.tasks, second.tasks) == ("lines: a", "lines: b")
    assert winners(first.merged) == []
    assert [n for n, *_ in winners(second.merged)] == [1, 2]


def test_a_table_has_a_row_for_each_number_of_steps_unless_each_k_has_one_of_its_own():
    (group,) = grouped([FIRST, SECOND]).values()
    columns, rows = pivot(merge(group))
    assert columns == ["learner", "gradient steps", "K = 1", "K = 2", "K = 4"]
    assert [row[:2] for row in rows] == [["in context", ""], ["ideal learner", ""], ["MAML", "1"], ["MAML", "5"]]
    assert [row[2].split()[0] for row in rows] == ["0.500", "0.000", "0.900", "0.400"]
    assert [row[4] == "" for row in rows] == [False, True, True, True]
    chosen = Measured(tasks="a", quantity="b", curves=(curve("tuned", "weights", {(1, 2): 0.5, (2, 20): 0.4}),))
    assert [row[:2] for row in pivot(chosen)[1]] == [["tuned", "2 to 20"]]
    assert markdown_tables([chosen]).splitlines()[:4] == [
        "a, b:", "", "| learner | gradient steps | K = 1 | K = 2 |", "| --- | --- | --- | --- |"
    ]  # fmt: skip


def test_the_command_writes_a_page_that_is_complete_and_its_figures(tmp_path, capsys):
    for name, one in (("first", FIRST), ("second", SECOND)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "result.json", to_json(one))
    page = tmp_path / "page.html"
    words = [str(tmp_path / "first"), str(tmp_path / "second" / "result.json"), "--out", str(page)]
    assert main(["meta", "report", *words, "--figures", str(tmp_path)]) == 0
    text = page.read_text()
    HTMLParser().feed(text)
    assert "http" not in text.replace("http://www.w3.org", "")
    assert text.count("<figure>") == 5
    for seen in ("lines: error", "1.23e+04 FLOPs", "in weights (gradient steps)", "no: they touch", "0.290"):
        assert seen in text
    assert (tmp_path / "lines-steps.svg").read_text().startswith('<svg style="color')


@pytest.mark.parametrize("name", ["first.json", "thesis.txt", "first.json/../first.json"])
def test_a_page_replaces_a_page_and_nothing_else(name, tmp_path, capsys):
    write_json(tmp_path / "first.json", to_json(FIRST))
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "first.json.d").mkdir()
    path = tmp_path / name.replace("first.json/..", "first.json.d/..")
    before = path.read_bytes()
    words = ["meta", "report", str(tmp_path / "first.json"), "--out"]
    assert main([*words, str(path)]) == 2
    assert "is there and is no page" in capsys.readouterr().err
    assert path.read_bytes() == before
    (tmp_path / "page.html").touch()
    assert main([*words, str(tmp_path / "page.html")]) == 0
    assert main([*words, str(tmp_path / "page.html")]) == 0


def test_what_is_no_result_is_refused_in_one_line(tmp_path, capsys):
    for words in ([], [str(tmp_path)], [str(tmp_path), "--learner", "maml"]):
        assert main(["meta", "report", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    for history in ({"maml": 5}, {"maml": [5]}, {"maml": [{"a": 1.0}]}, {"maml": [{"iteration": 1, "loss": None}]}):
        write_json(tmp_path / "odd.json", {**to_json(FIRST), "history": history})
        assert main(["meta", "report", str(tmp_path / "odd.json")]) == 2
        assert "history.maml must be a list of rows" in capsys.readouterr().err
    assert main(["meta", "sinusoid", "somewhere"]) == 2
    assert "folders are for" in capsys.readouterr().err


def test_an_interval_that_is_cut_off_on_one_side_is_shown_with_its_wider_half():
    whole = point([0.5, 1.0], n_examples=1)
    cut = Curve(learner="a", kind="context", points=(replace(whole, low=0.1, high=1.0),))
    assert pivot(Measured(tasks="a", quantity="b", curves=(cut,)))[1] == [["a", "", "0.750 ± 0.650"]]


def test_a_folder_without_a_result_says_what_it_is(tmp_path, capsys):
    (tmp_path / "books").mkdir()
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "maml.safetensors").touch()
    for name, said in (("books", "is no folder of 'fewshot meta'"), ("stopped", "is not finished: give its")):
        assert main(["meta", "report", str(tmp_path / name), "--out", str(tmp_path / "page.html")]) == 2
        assert f"{name} {said}" in capsys.readouterr().err
