from __future__ import annotations

import pytest
import torch
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadFile, BadValue, Diverged
from fewshot.meta.episodes import Sinusoids
from fewshot.meta.learners.weight_learner import LearnerConfig, WeightLearner, learner_options
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

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


def reading_loop(**options) -> OuterLoop:
    """Return a loop whose tensors are a GPT's, which learns to repeat a text."""
    model = GPT(GPTConfig(n_layers=2, d_model=8, n_heads=2, n_ctx=8, n_vocab=5), seed=0)
    text = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
    config = OuterConfig(**{"n_iterations": 6, "report_every": 2, "optimizer": "muon", "matrix_lr": 0.02, **options})
    return OuterLoop(
        dict(model.named_parameters()), lambda *_: OuterLoss(model.loss(text[:, :-1], text[:, 1:])), config
    )


def test_muon_takes_the_matrices_of_blocks_and_adam_the_rest_and_both_go_on_where_they_were(tmp_path):
    path = tmp_path / "state.safetensors"
    whole, cut, again = (reading_loop() for _ in range(3))
    adam, muon = ([tensor for g in o.param_groups for tensor in g["params"]] for o in whole.optimizers)
    matrices = {name: t for name, t in whole.learned.items() if name.startswith("h.") and t.ndim == 2}
    assert {id(t) for t in adam} == {id(t) for name, t in whole.learned.items() if name not in matrices}
    places = [t.data_ptr() for name, t in matrices.items() for t in t.chunk(3 if "c_attn" in name else 1)]
    assert sorted(tensor.data_ptr() for tensor in muon) == sorted(places)
    assert all(
        tensor.shape == (8, 8) for tensor in muon if max(tensor.shape) < 32
    )  # not one of queries, keys and values
    rows = list(whole.run())
    assert rows[-1]["loss"] < rows[0]["loss"]
    list(cut.run(stop=lambda: cut.iteration == 3))
    cut.save(path, about=ABOUT)
    again.load(path, about=ABOUT)
    list(again.run())
    assert again.history == whole.history
    assert all(torch.equal(whole.learned[name], again.learned[name]) for name in whole.learned)


def test_muon_and_adam_warm_up_and_fall_together():
    one_loop, rates = reading_loop(warmup=2, lr=0.5), []
    for _ in one_loop.run(stop=lambda: bool(rates.append([o.param_groups[0]["lr"] for o in one_loop.optimizers]))):
        pass
    assert rates[1] == [0.25, 0.01]
    assert all(matrix == pytest.approx(0.04 * rest) for rest, matrix in rates[1:])


def test_muon_without_a_block_to_learn_is_refused():
    with pytest.raises(BadValue, match="has no Transformer block: give adam"):
        loop(optimizer="muon", matrix_lr=0.02)


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
        with pytest.raises(BadValue, match="started from other initial weights"):
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
     ({"optimizer": "sgd", "weight_decay": 0.1}, "sgd here has none"), ({"seed": 2**70}, "seed is"),
     ({"optimizer": "muon"}, "muon needs one"), ({"matrix_lr": 0.1}, "muon needs one")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        OuterConfig(**wrong)
