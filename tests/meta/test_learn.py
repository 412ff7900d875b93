from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadFile, BadValue, Diverged
from fewshot.cli.main import main
from fewshot.meta.episodes import Sinusoids
from fewshot.meta.learn import LEARNERS, MetaConfig, MetaTraining, adaptation_curve, sinusoid_network

CONFIG = MetaConfig(n_iterations=60, head="4.")
UNSEEN = Sinusoids().draw(50, 5, 20, torch.Generator().manual_seed(7))


def training(config: MetaConfig = CONFIG) -> MetaTraining:
    return MetaTraining(sinusoid_network(config.seed), Sinusoids(), mse_loss, config)


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_lowers_the_loss_of_unseen_tasks_after_a_step(learner):
    begun = training(replace(CONFIG, learner=learner, n_iterations=400))
    (before,) = adaptation_curve(begun, UNSEEN, [1])
    reports = list(begun.run(report_every=100))
    (after,) = adaptation_curve(begun, UNSEEN, [1])
    assert [done for done, _ in reports] == [100, 200, 300, 400]
    assert after.mean < before.mean - 0.3
    assert (after.n_tasks, after.n_steps) == (50, 1)
    assert after.half_width > 0


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    for learner in ("maml", "meta-sgd"):
        config, path = replace(CONFIG, learner=learner), tmp_path / f"{learner}.safetensors"
        whole, cut = training(config), training(config)
        list(whole.run())
        for done, _ in cut.run(report_every=20):
            if done == 40:
                break
        cut.save(path)
        again = training(config)
        again.load(path)
        assert again.iteration == 40
        list(again.run())
        assert all(torch.equal(a, b) for a, b in zip(whole.learned, again.learned, strict=True))


def test_a_state_of_other_settings_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    training().save(path)
    with pytest.raises(BadValue, match="belongs to other settings"):
        training(replace(CONFIG, seed=1)).load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadFile, match="is damaged"):
        training().load(path)


def test_a_run_that_diverges_is_stopped():
    with pytest.raises(Diverged, match="the query loss is no number"):
        list(training(replace(CONFIG, lr=1e30, decay=False)).run())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"learner": "mamal"}, "learner is 'mamal'"), ({"n_tasks": 0}, "n_tasks is 0"), ({"lr": 0.0}, "lr is 0.0"),
     ({"learner": "anil", "head": ""}, "anil adapts a head")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        replace(CONFIG, **wrong)


def test_the_command_trains_measures_and_goes_on(tmp_path, capsys):
    words = ["meta", "sinusoid", "--n_iterations", "30", "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    assert [one["n_steps"] for one in first["curve"]] == [0, 1, 5, 10]
    assert json.loads((tmp_path / "result.json").read_text()) == first
    assert main(words) == 0
    again = capsys.readouterr()
    assert "going on after 30 iterations" in again.err
    assert json.loads(again.out) == first
    assert main([*words, "--learner", "nothing"]) == 2
    assert "learner is 'nothing', allowed: maml" in capsys.readouterr().err
