from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fewshot.base.config import read_yaml
from fewshot.base.errors import UnknownName
from fewshot.cli.meta import TASKS
from fewshot.meta.experiment import KINDS, about_training, configure, measure, prepare, train

RUNS = sorted((Path(__file__).parents[2] / "runs").glob("meta_*.yaml"))
SHORT = {"outer": {"n_iterations": 30, "report_every": 10}, "test_tasks": 5}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_is_a_configuration_of_its_kind(path):
    kind, given = path.stem.split("_")[1], read_yaml(path)
    config = configure(kind, given)
    assert config.outer.n_iterations == given["outer"]["n_iterations"]
    assert about_training({"test_tasks": 1, "outer": 2}) == {"outer": 2}


def test_the_command_knows_every_kind():
    assert set(TASKS) == set(KINDS)


def test_what_is_not_given_is_as_the_kind_has_it_and_a_name_stands_for_its_options():
    config = configure("omniglot", {"learner": {"name": "anil"}})
    assert (config.learner.adapts, config.learner.step_size, config.learner.n_tasks) == ("head.", 0.4, 32)
    assert configure("sinusoid", {"learner": {"name": "fomaml", "first_order_share": 0.5}}).learner.name == "fomaml"
    with pytest.raises(UnknownName, match="learner 'mamal'"):
        configure("sinusoid", {"learner": {"name": "mamal"}})


def test_what_is_broken_off_is_kept_and_goes_on_to_the_same_result(tmp_path):
    def run(folder: Path, stop_at: int | None) -> dict[str, torch.Tensor]:
        experiment = prepare("sinusoid", configure("sinusoid", SHORT))
        rows = train(experiment, folder, about=SHORT)
        for _, row in rows:
            if row["iteration"] == stop_at:
                rows.close()  # as Ctrl-C does
        return dict(experiment.loops["maml"].learned)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = run(whole, None)
    run(cut, 20)
    found = run(cut, None)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_result_tells_settings_and_history(tmp_path):
    experiment = prepare("sinusoid", configure("sinusoid", SHORT))
    list(train(experiment, tmp_path, about=SHORT))
    measured = measure(experiment, tmp_path, about={"settings": SHORT})
    assert [row["iteration"] for row in measured.history["maml"]] == [10, 20, 30]
    assert measured.about == {"settings": SHORT}
    assert (tmp_path / "result.json").is_file()
