from __future__ import annotations

import pytest
import torch
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadFile, BadValue, Diverged
from fewshot.meta.episodes import Sinusoids
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner, learner_options
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss

ABOUT = {"tasks": "sinusoid", "widths": (7,)}


def loop(learner: str = "maml", **options) -> OuterLoop:
    network = perceptron(1, (7,), 1, seed=0)
    weight_learner = WeightLearner(
        network, Sinusoids(), mse_loss, LearnerConfig(**{**learner_options(learner), "n_tasks": 3})
    )
    return OuterLoop(
        weight_learner.start.named(),
        weight_learner.step,
        OuterConfig(**{"n_iterations": 60, "report_every": 20, **options}),
    )


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("learner", ["maml", "meta-sgd", "reptile"])
def test_a_loop_that_was_stopped_goes_on_as_if_it_had_not_been(learner, optimizer, tmp_path):
    path = tmp_path / "state.safetensors"
    whole, cut, again = (loop(learner, optimizer=optimizer) for _ in range(3))
    rows = list(whole.run(lambda: {"seven": 7.0}))
    assert [row["seven"] for row in rows] == [7.0, 7.0, 7.0]
    for row in cut.run(lambda: {"seven": 7.0}):
        if row["iteration"] == 40:
            break
    cut.save(path, about=ABOUT)
    again.load(path, about=ABOUT)
    assert again.iteration == 40
    list(again.run(lambda: {"seven": 7.0}))
    assert again.history == whole.history
    assert all(torch.equal(whole.learned[name], again.learned[name]) for name in whole.learned)


def test_a_loop_that_was_stopped_between_reports_goes_on_with_the_same_rows(tmp_path):
    path = tmp_path / "state.safetensors"
    whole, cut, again = (loop() for _ in range(3))
    list(whole.run())
    assert [row["iteration"] for row in cut.run(stop=lambda: cut.iteration == 33)] == [20]
    cut.save(path, about=ABOUT)
    again.load(path, about=ABOUT)
    assert again.iteration == 33
    list(again.run())
    assert again.history == whole.history
    assert all(torch.equal(whole.learned[name], again.learned[name]) for name in whole.learned)


def test_a_loop_is_not_whole_within_an_iteration_nor_when_it_has_diverged():
    sound = loop()
    step, seen = sound.step, []
    sound.step = lambda *given: seen.append(sound.is_whole) or step(*given)
    assert sound.is_whole
    for _ in sound.run():
        assert sound.is_whole
    assert set(seen) == {False}
    lost = loop(lr=1e30, schedule="constant")
    with pytest.raises(Diverged):
        list(lost.run())
    assert not lost.is_whole


def test_a_state_of_other_settings_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    loop().save(path, about=ABOUT)
    with pytest.raises(BadValue, match="belongs to other settings"):
        loop().load(path, about={**ABOUT, "widths": (8,)})
    for width, seed in ((7, 1), (9, 0)):
        other = perceptron(1, (width,), 1, seed=seed)
        with pytest.raises(BadValue, match="began with other weights"):
            OuterLoop(dict(other.named_parameters()), loop().step, OuterConfig()).load(path, about=ABOUT)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadFile, match="is damaged"):
        loop().load(path, about=ABOUT)


def test_a_loop_that_diverges_is_stopped():
    with pytest.raises(Diverged, match="the loss is not a finite number after 20 iterations"):
        list(loop(lr=1e30, schedule="constant").run())


def test_the_learning_rate_warms_up_and_falls_as_configured():
    def rates(schedule: str) -> list[float]:
        config = OuterConfig(n_iterations=12, warmup=2, lr=4.0, schedule=schedule)
        return [config.lr_at(i) for i in (0, 1, 2, 7)]

    assert rates("constant") == [2.0, 4.0, 4.0, 4.0]
    assert rates("linear") == [2.0, 4.0, 4.0, 2.0]
    assert rates("cosine") == pytest.approx([2.0, 4.0, 4.0, 2.0])


def test_long_gradients_are_cut_and_known_ones_are_taken_as_they_are():
    weight = torch.tensor([3.0], requires_grad=True)
    config = OuterConfig(n_iterations=1, optimizer="sgd", lr=1.0, schedule="constant", clip_norm=0.5)
    (row,) = OuterLoop({"w": weight}, lambda *_: OuterLoss(100 * weight.sum()), config).run()
    assert weight.item() == pytest.approx(2.5)
    assert row == {"iteration": 1, "loss": 300.0}
    given = OuterLoss(torch.tensor(5.0), {"w": torch.tensor([-0.25])})
    (row,) = OuterLoop({"w": weight}, lambda *_: given, config).run()
    assert weight.item() == pytest.approx(2.75)
    assert row == {"iteration": 1, "loss": 5.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"lr": 0.0}, "lr is 0.0"), ({"n_iterations": 0}, "n_iterations is 0"), ({"optimizer": "lion"}, "'lion'"),
     ({"schedule": "step"}, "'step'"), ({"betas": (0.9,)}, "betas are"), ({"warmup": -1}, "warmup is -1"),
     ({"clip_norm": 0.0}, "clip_norm is 0.0"), ({"weight_decay": -1.0}, "weight_decay is -1"),
     ({"optimizer": "sgd", "weight_decay": 0.1}, "sgd here has none"), ({"seed": 2**70}, "seed is")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        OuterConfig(**wrong)
