from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.meta.learners.baselines import gradient_step
from fewshot.meta.learners.weight_learner import LearnerConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.linear_attention import Config, Experiment, LinearAttention, LinearFunctions

SMALL = Config(
    n_dims=2,
    n_examples=3,
    n_tasks=256,
    outer=OuterConfig(n_iterations=400, lr=2e-2, report_every=400),
    learner=LearnerConfig(n_tasks=64, n_support=3, step_size=0.1, step_sizes="layer", compile="untraced"),
    learner_outer=OuterConfig(n_iterations=300, lr=3e-2, report_every=300),
    test_tasks=3000,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_functions_are_linear_on_points_that_are_uniform_between_minus_1_and_1():
    drawn = LinearFunctions(3).draw(5000, 4, 2, generator())
    assert drawn.support_x.abs().max() <= 1
    assert drawn.query_x.square().mean().item() == pytest.approx(1 / 3, rel=0.03)
    weights = torch.linalg.lstsq(drawn.support_x[:100].double(), drawn.support_y[:100].double()).solution
    torch.testing.assert_close(drawn.query_x[:100].double() @ weights, drawn.query_y[:100].double(), atol=1e-2, rtol=0)
    assert drawn.query_y.square().mean().item() == pytest.approx(1, rel=0.05)  # 3 dimensions, a third each


@torch.no_grad()
def test_with_the_matrices_of_the_paper_the_layer_is_a_gradient_step():
    """Keys and queries read x, values read y; size/K stands in the output matrix (von Oswald et al., Proposition 1)."""
    layer, drawn = LinearAttention(4), LinearFunctions(4).draw(6, 5, 1, generator())
    reads_x, reads_y = torch.diag(torch.tensor([1.0, 1, 1, 1, 0])), torch.diag(torch.tensor([0.0, 0, 0, 0, 1]))
    for matrix, weight in (
        (layer.query, reads_x), (layer.key, reads_x), (layer.value, reads_y), (layer.out, 1.7 / 5 * torch.eye(5)),
    ):  # fmt: skip
        matrix.weight.copy_(weight)
    query = drawn.query_x[:, 0]
    by_step = gradient_step(drawn.support_x, drawn.support_y, query, sizes=torch.full((6,), 1.7))
    torch.testing.assert_close(layer(drawn.support_x, drawn.support_y, query), by_step)


@torch.no_grad()
def test_the_layer_is_attention_over_all_points_without_a_softmax():
    torch.manual_seed(0)
    layer, drawn = LinearAttention(2), LinearFunctions(2).draw(1, 3, 1, generator())
    points = torch.cat([drawn.support_x[0], drawn.support_y[0]], 1)
    last = torch.cat([drawn.query_x[0, 0], torch.zeros(1)])
    added = torch.zeros(3)
    for point in (*points, last):
        added += layer.value(point) * (layer.key(point) @ layer.query(last))
    predicted = layer(drawn.support_x, drawn.support_y, drawn.query_x[:, 0])
    torch.testing.assert_close(predicted[0, 0], layer.out(added)[-1])


def test_a_trained_layer_and_mamls_first_step_predict_as_the_best_gradient_step():
    experiment = Experiment(SMALL)
    assert list(experiment.loops) == ["context_0", "maml_0"]
    rows = list(experiment.loops["context_0"].run(lambda: experiment.watch("context_0")))
    list(experiment.loops["maml_0"].run())
    assert rows[-1]["correlation"] > 0.99
    assert rows[-1]["difference"] < 0.02
    assert abs(rows[-1]["excess"]) < 0.01
    assert experiment.watch("maml_0") == {}
    measured = experiment.measure()
    points = {curve.learner: curve.points[0] for curve in measured.curves}
    assert list(points) == ["context", "maml", "one gradient step", "least squares", "predicting 0"]
    step = points["one gradient step"]
    assert points["context"].mean == pytest.approx(step.mean, rel=0.02)
    assert points["maml"].mean == pytest.approx(step.mean, rel=0.05)
    assert points["least squares"].mean < 0.01 < step.mean < 0.8 * points["predicting 0"].mean
    assert {point.n for point in points.values()} == {3000}
    assert points["context"].flops > step.flops > 0
    assert points["maml"].flops > step.flops
    assert points["maml"].n_steps == 1


def test_a_layer_that_predicts_otherwise_is_told_from_the_step():
    experiment = Experiment(SMALL)
    told = experiment.watch("context_0")
    assert told["excess"] > 0.1
    assert told["difference"] > 0.5
    with torch.no_grad():
        experiment.layers[0].out.weight.zero_()
        experiment.layers[0].out.weight[-1, -1] = 1e-6
    none = experiment.watch("context_0")
    assert none["difference"] == pytest.approx(1, abs=0.01)
    assert none["error"] == pytest.approx(2 / 3, rel=0.1)


def test_every_seed_is_trained_and_intervals_are_over_them():
    few = replace(SMALL.outer, n_iterations=2, report_every=1)
    experiment = Experiment(replace(SMALL, seeds=2, outer=few, learner_outer=few))
    assert list(experiment.loops) == ["context_0", "context_1", "maml_0", "maml_1"]
    assert not torch.equal(experiment.layers[0].out.weight, experiment.layers[1].out.weight)
    points = {curve.learner: curve.points[0] for curve in experiment.measure().curves}
    assert [points[learner].n for learner in ("context", "maml", "one gradient step")] == [2, 2, 3000]


def test_the_command_trains_both_and_a_layer_can_be_alone(tmp_path, capsys):
    few = ["--outer.n_iterations", "2", "--outer.report_every", "1", "--test_tasks", "9", "--seeds", "2"]
    assert main(["meta", "step", *few, "--learner", "context", "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["history"]) == {"context_0", "context_1"}
    assert set(result["history"]["context_1"][0]) == {
        "iteration", "loss", "error", "excess", "correlation", "difference",
    }  # fmt: skip
    assert [curve["learner"] for curve in result["curves"]][:2] == ["context", "one gradient step"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"n_dims": 0}, "n_dims is 0"), ({"test_tasks": 1}, "test_tasks is 1"), ({"seeds": 0}, "seeds is 0"),
     ({"n_examples": 4}, "learner.n_support is 10, must be n_examples, 4"),
     ({"learner": LearnerConfig(name="context", n_support=10)}, "learner.name is 'context'")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        Config(**wrong)
