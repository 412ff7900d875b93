from __future__ import annotations

import re

import pytest
from rich.console import Console

from fewshot.cli.show import print_table, show_results
from fewshot.evaluate.result import Result


def result(**fields) -> Result:
    plain = {
        "task": "arithmetic_5d_subtract",
        "paper_name": "5D-",
        "protocol": "gpt3",
        "metric": "calibration_error",
        "share": True,
        "shots": 16,
        "shots_used": 12.5,
        "n": 2000,
        "n_skipped": 17,
        "value": 0.25,
        "low": 0.2,
        "high": 0.3,
        "ideal": 0.9,
        "chance": 0.1,
        "seed": 0,
        "source": "made by rule",
    }
    return Result(**{**plain, **fields})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """A function that sets the width of a terminal on standard output."""

    def of(columns: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
        monkeypatch.setenv("NO_COLOR", "1")

    return of


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_results_fit_the_terminal_and_no_figure_is_cut(terminal, capsys, columns):
    terminal(columns)
    show_results([result(), result(protocol="lm-eval", seed=3)], title="a title")
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= columns
    for seen in ("arithmetic_5d_subtract", "lm-eval", "12.5", "0.250", "0.200-0.300", "0.900", "0.100", "17"):
        assert seen in out.replace("\n", "")
    assert out.count("a title") == 1


def test_a_pipe_gets_one_table_however_narrow_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    show_results([result(), result(protocol="lm-eval", seed=3)])
    lines = capsys.readouterr().out.splitlines()
    assert sum("arithmetic_5d_subtract" in line for line in lines) == 2
    assert "protocol" in lines[1]
    assert "seed" in lines[1]


def test_what_is_the_same_for_all_or_empty_has_no_column(capsys):
    show_results([result(shots_used=16, n_skipped=0, ideal=None)])
    head = capsys.readouterr().out.splitlines()[1]
    assert [cell.strip() for cell in head.strip("┃").split("┃")] == [
        *("task", "metric", "K", "n", "value", "95% interval", "chance"),
    ]


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/nothing]", "[bold", "a[0]"])
def test_brackets_in_names_are_shown_as_they_are(capsys, text):
    print_table((text, "n"), [(text, "1")], title=text)
    assert capsys.readouterr().out.count(text) == 3
