from __future__ import annotations

import json

import pytest

from fewshot.base.lock import is_empty
from fewshot.cli.main import main
from fewshot.meta.tasks.sinusoid import Experiment

FEW = ["--outer.n_iterations", "30", "--test_tasks", "20", "--outer.report_every", "10"]


def test_the_command_trains_measures_and_goes_on(tmp_path, capsys):
    words = ["meta", "sinusoid", *FEW, "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    (curve,) = first["curves"]
    assert [(point["n_steps"], point["n_examples"], point["n"]) for point in curve["points"]] == [
        (0, 5, 20), (1, 5, 20), (5, 5, 20), (10, 5, 20)
    ]  # fmt: skip
    assert [row["iteration"] for row in first["history"]["maml"]] == [10, 20, 30]
    assert json.loads((tmp_path / "result.json").read_text()) == first
    before = (tmp_path / "maml.safetensors").read_bytes()
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert (tmp_path / "maml.safetensors").read_bytes() == before
    assert main([*words, "--test_steps", "[2]"]) == 0  # what was trained can be measured again
    assert [point["n_steps"] for point in json.loads(capsys.readouterr().out)["curves"][0]["points"]] == [2]
    assert (tmp_path / "maml.safetensors").read_bytes() == before
    assert main([*words, "--outer.n_iterations", "40"]) == 2
    assert "belongs to other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--learner", "mamal"], "learner 'mamal'"), (["--learner", "context"], "in context"),
     (["--outer.lr", "0"], "lr is 0"), (["--test_steps", "[]"], "test_steps"),
     (["--test_steps", "[-1]"], "test_steps is [-1]"), (["--widths", "[-1]"], "widths are [-1]"),
     (["--learner.name", "[1]"], "unknown learner '[1]'"), (["--learner.name", "3"], "unknown learner '3'"),
     (["--threads", "100000000000"], "threads is 100000000000"), (["--figures", "here"], "--figures"),
     (["--test_tasks", "1"], "test_tasks is 1"),
     (["--learner.nam", "maml"], "key in sinusoid.learner"), (["somewhere"], "'somewhere'")],
)  # fmt: skip
def test_what_means_nothing_is_refused_in_one_line(words, message, tmp_path, capsys):
    assert main(["meta", "sinusoid", *FEW, *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert is_empty(tmp_path)


def test_a_learner_of_another_name_has_its_own_folder_and_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["meta", "sinusoid", "--learner", "pretrain", *FEW]) == 0
    assert (tmp_path / "out" / "meta_sinusoid_pretrain" / "pretrain.safetensors").is_file()
    assert "mean squared error" in capsys.readouterr().out


def test_what_is_trained_where_and_how_to_go_on_is_said(tmp_path, capsys, monkeypatch):
    words = ["meta", "sinusoid", *FEW, "--outer.n_iterations", "1030", "--outer.report_every", "1010",
             "--learner.compile", "untraced", "--learner.n_tasks", "1", "--out", str(tmp_path)]  # fmt: skip
    assert main(words) == 0
    messages = capsys.readouterr().err
    assert "sinusoid: maml; 1,030 iterations of the outer loop" in messages.splitlines()[0]
    assert str(tmp_path) in messages
    assert "maml: iteration 1,010, loss " in messages
    assert "e+0" not in messages

    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "measure", stopped)
    assert main(words) == 130
    assert f"kept in {tmp_path}: the same command again goes on" in " ".join(capsys.readouterr().err.split())
