from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import mse_loss

from fewshot.base.errors import BadValue, UnknownName
from fewshot.kernels.compiler import compiler_problem
from fewshot.meta.episodes import Sinusoids
from fewshot.meta.flops import training_flops
from fewshot.meta.learners.maml import InnerLoop, outer_gradients
from fewshot.meta.learners.weight_learner import LEARNERS, LearnerConfig, WeightLearner, learner_options
from fewshot.meta.nn.networks import perceptron
from fewshot.meta.outer_loop import OuterConfig, OuterLoop

UNSEEN = Sinusoids().draw(50, 5, 20, torch.Generator().manual_seed(7))
IN_WEIGHTS = [name for name in LEARNERS if name != "context"]
OUTER = {"reptile": OuterConfig(n_iterations=400, optimizer="sgd", lr=0.3, schedule="linear", report_every=100)}


def learner(name: str, **options) -> WeightLearner:
    network = perceptron(1, (40, 40), 1, seed=0)
    return WeightLearner(network, Sinusoids(), mse_loss, LearnerConfig(**{**learner_options(name), **options}))


def loss_after_a_step(learned: WeightLearner) -> float:
    return learned.curve(UNSEEN, [1], n_examples=5).points[0].mean


@pytest.mark.parametrize("name", IN_WEIGHTS)
def test_every_learner_lowers_the_loss_of_unseen_tasks_after_a_step(name):
    learned = learner(name, **({"n_steps": 8, "step_size": 0.01} if name == "reptile" else {}))
    before = loss_after_a_step(learned)
    config = OUTER.get(name, OuterConfig(n_iterations=400, report_every=100))
    loop = OuterLoop(learned.start.named(), learned.step, config)
    rows = list(loop.run())
    assert [row["iteration"] for row in rows] == [100, 200, 300, 400]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert loss_after_a_step(learned) < before - 0.3


def test_a_curve_has_steps_examples_flops_and_intervals():
    maml = learner("maml")
    curve = maml.curve(UNSEEN, [0, 1, 10], n_examples=5, at_once=7)
    assert (curve.learner, curve.kind) == ("maml", "weights")
    assert [(p.n_examples, p.n_steps, p.n) for p in curve.points] == [(5, 0, 50), (5, 1, 50), (5, 10, 50)]
    assert all(p.low < p.mean < p.high for p in curve.points)
    products = 40 + 40 * 40 + 40  # of one forward pass; a backward pass has twice these, save the gradient of x
    assert [p.flops for p in curve.points] == [2 * products + n * 5 * 2 * (3 * products - 40) for n in (0, 1, 10)]
    whole = maml.curve(UNSEEN, [0, 1, 10], n_examples=5, at_once=50)
    assert [p.mean for p in whole.points] == pytest.approx([p.mean for p in curve.points])


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, when it compiles
@pytest.mark.skipif(compiler_problem("cpu") is not None, reason="no compiler")
def test_flops_of_training_are_the_same_when_it_is_compiled():
    traced, compiled = (learner("maml", n_tasks=2, compile=setting) for setting in ("never", "always"))
    assert training_flops(compiled.step, n_iterations=3) == training_flops(traced.step, n_iterations=3) > 0


def test_the_options_of_a_name_leave_nothing_of_another_one():
    assert learner_options("maml")["by_step"] == ""
    assert learner_options("reptile")["algorithm"] == "reptile"
    assert "step_size" not in learner_options("anil")
    with pytest.raises(UnknownName, match="learner 'mamal'"):
        learner_options("mamal")


def test_losses_after_all_steps_count_alike_at_first_and_only_the_last_one_in_the_end():
    config = LearnerConfig(n_steps=4, multi_step_share=0.5)
    assert config.step_weights(0.0) == (0.25, 0.25, 0.25, 0.25)
    assert config.step_weights(0.25) == pytest.approx((0.125, 0.125, 0.125, 0.625))
    assert config.step_weights(0.5) == (0, 0, 0, 1)
    assert LearnerConfig(n_steps=3).step_weights(0.0) == (0, 0, 1)


def test_learned_step_sizes_and_weights_by_step_have_their_shapes():
    weight = learner("meta-sgd").start
    assert weight.step_sizes["hidden1.weight"].shape == (1, 40, 40)
    layer = learner("maml++", n_steps=3, by_step="head").start
    assert layer.step_sizes["hidden1.weight"].shape == (3,)
    assert {name: rows.shape for name, rows in layer.by_step.items()} == {
        "head.weight": (4, 1, 40), "head.bias": (4, 1)
    }  # fmt: skip
    assert not layer.by_step.keys() & (layer.weights.keys() | layer.step_sizes.keys())
    assert set(learner("anil").start.weights) == set(weight.weights)


def test_second_derivatives_begin_when_the_first_order_share_is_over():
    maml = learner("maml", first_order_share=0.5)
    gradients = []
    for done in (0.0, 0.49, 0.5):
        loss = maml.step(torch.Generator().manual_seed(3), done)
        gradients.append(loss.gradients["weights.hidden1.weight"])
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(gradients[1], gradients[2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"algorithm": "mamal"}, "algorithm is 'mamal'"), ({"n_tasks": 0}, "n_tasks is 0"),
     ({"step_sizes": "many"}, "step_sizes is 'many'"), ({"multi_step_share": -1.0}, "at least 0"),
     ({"first_order_share": 1.5}, "from 0 to 1"),
     ({"inner_optimizer": "lion"}, "inner optimizer is 'lion'")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        replace(LearnerConfig(), **wrong)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_gradients_of_a_step_are_the_outer_gradients(n_steps):
    maml = learner("maml", n_steps=n_steps, step_size=0.05, n_tasks=4)
    loss = maml.step(torch.Generator().manual_seed(3), 0.0)
    episodes = Sinusoids().draw(4, 5, 10, torch.Generator().manual_seed(3))
    value, gradients = outer_gradients(maml.module, episodes, mse_loss, InnerLoop(step_size=0.05), n_steps=n_steps)
    assert torch.allclose(loss.value, value)
    assert all(
        torch.allclose(loss.gradients[f"weights.{name}"], gradient, atol=1e-6) for name, gradient in gradients.items()
    )


def test_the_losses_after_all_steps_are_weighted_and_the_last_one_is_reported():
    maml = learner("maml", n_steps=2, multi_step_share=1.0, n_tasks=4)
    loss = maml.step(torch.Generator().manual_seed(3), 0.5)  # weights 0.25 and 0.75
    episodes = Sinusoids().draw(4, 5, 10, torch.Generator().manual_seed(3))
    (_, gradients), (last, more) = (
        outer_gradients(maml.module, episodes, mse_loss, InnerLoop(), n_steps=n) for n in (1, 2)
    )
    assert torch.allclose(loss.value, last)
    for name, gradient in gradients.items():
        assert torch.allclose(loss.gradients[f"weights.{name}"], 0.25 * gradient + 0.75 * more[name], atol=1e-6)


def test_a_learner_in_context_has_no_gradient_steps():
    with pytest.raises(BadValue, match="in context"):
        learner("context")
