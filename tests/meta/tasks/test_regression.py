from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewshot.base.config import read_yaml
from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.meta.curves import Curve
from fewshot.meta.experiment import configure
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.learners.weight_learner import LearnerConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.regression import Config, Experiment, LinearFunctions

RUNS = Path(__file__).parents[3] / "runs"
SMALL = Config(
    n_dims=1,
    n_examples=4,
    n_tasks=32,
    reader=ContextModelConfig(n_layers=2, d_model=16, n_heads=2, init_std=0.3),
    outer=OuterConfig(n_iterations=400, report_every=200, lr=1e-2, warmup=20, clip_norm=1.0),
    learner=LearnerConfig(n_tasks=20, n_support=3, step_size=0.1),
    learner_outer=OuterConfig(n_iterations=200, report_every=200, lr=3e-3),
    widths=(8,),
    test_tasks=300,
    test_steps=(1, 3),
)


def trained(config: Config) -> Experiment:
    experiment = Experiment(config)
    for loop in experiment.loops.values():
        list(loop.run())
    return experiment


def test_linear_functions_are_those_of_the_paper_and_noise_is_added_to_every_y():
    for noise in (0.0, 0.5):
        drawn = LinearFunctions(3, noise).draw(40_000, 5, 2, torch.Generator().manual_seed(0))
        assert drawn.support_x.shape == (40_000, 5, 3)
        assert drawn.query_y.shape == (40_000, 2, 1)
        assert drawn.query_y.square().mean().item() == pytest.approx(3 + noise**2, rel=0.06)
        fitted = torch.linalg.lstsq(drawn.support_x, drawn.support_y)
        left = (drawn.support_x @ fitted.solution - drawn.support_y).square().sum(1).mean().item()
        assert left == pytest.approx(2 * noise**2, rel=0.06, abs=1e-6)  # 5 points, 3 of them spent on weights


def test_functions_are_learned_in_context_and_in_weights():
    measured = trained(SMALL).measure()
    curves = {curve.learner: curve for curve in measured.curves}
    kinds = {name: curve.kind for name, curve in curves.items()}
    assert kinds == {
        "context": "context",
        "maml": "weights",
        "least squares": "bound",
        "3 nearest neighbours": "baseline",
        "averaging": "baseline",
        "one gradient step": "baseline",
        "predicting 0": "baseline",
    }
    errors = {name: [point.mean for point in curve.points] for name, curve in curves.items()}
    seen = [(point.n_examples, point.n_steps) for point in curves.pop("maml").points]
    assert seen == [(0, 0), (3, 1), (3, 3), (4, 1), (4, 3)]
    assert all([point.n_examples for point in curve.points] == [0, 1, 2, 3, 4] for curve in curves.values())
    assert all(point.n == 300 for curve in measured.curves for point in curve.points)
    assert errors["context"][4] < 0.2 < 0.7 < errors["context"][0]
    assert errors["context"][4] < errors["3 nearest neighbours"][4]
    assert errors["maml"][4] < errors["maml"][3] < errors["maml"][0]  # 4 examples after 3 steps and 1, none
    assert max(errors["least squares"][1:]) < 1e-6
    assert measured.quantity == "squared error over d"
    assert all(point.flops is None for point in curves["averaging"].points)
    by_reading, by_steps = curves["context"].points, measured.curves[1].points
    assert by_reading[4].flops > by_reading[0].flops > 0
    assert by_steps[4].flops > by_steps[3].flops > by_steps[0].flops > 0
    assert curves["context"].training_flops > 400 * 32 * by_reading[4].flops


def test_with_noise_ridge_is_the_best_and_the_bound():
    experiment = Experiment(replace(SMALL, noise=0.7, n_dims=2, learner=LearnerConfig(algorithm="context")))
    assert list(experiment.loops) == ["context"]
    curves = {curve.learner: curve for curve in experiment.measure().curves}
    assert [name for name, curve in curves.items() if curve.kind == "bound"] == ["ridge"]
    for name, curve in curves.items():
        if name != "ridge":
            for best, other in zip(curves["ridge"].points[1:], curve.points[1:], strict=True):
                assert best.mean < other.mean, name


def test_sinusoids_are_read_too_and_a_learner_in_weights_can_be_alone():
    config = replace(SMALL, functions="sinusoid", outer=replace(SMALL.outer, n_iterations=20, report_every=10))
    experiment = Experiment(config)
    first, last = list(experiment.loops["context"].run(lambda: experiment.watch("context")))
    assert last["loss"] < first["loss"]
    assert {"error_0", "error_2", "error_4"} < set(last)
    assert experiment.watch("maml") == {}
    measured = experiment.measure()
    assert measured.quantity == "mean squared error"
    assert {curve.learner for curve in measured.curves if curve.kind == "baseline"} == {
        "3 nearest neighbours", "predicting 0"
    }  # fmt: skip
    (zero,) = (curve for curve in measured.curves if curve.learner == "predicting 0")
    assert zero.points[2].mean == pytest.approx(4.25, rel=0.3)
    alone = Experiment(replace(config, reader=None))
    assert list(alone.loops) == ["maml"]
    assert {curve.kind for curve in alone.measure().curves} == {"weights", "baseline"}


def test_the_loss_is_the_mean_over_places_of_the_error_or_of_its_log():
    drawn = LinearFunctions(1).draw(32, 5, 1, torch.Generator().manual_seed(0))
    x, y = torch.cat([drawn.support_x, drawn.query_x], 1), torch.cat([drawn.support_y, drawn.query_y], 1)
    assert x.shape == (32, 4 + 1 + 1, 1)  # examples, one beyond those of the test, a query
    for relative in (True, False):
        experiment = Experiment(replace(SMALL, relative=relative))
        loss = experiment.loops["context"].step(torch.Generator().manual_seed(0), 0.0)
        errors = (experiment.readers["context"](x, y) - y).square().mean((0, 2))
        wanted = errors.log() if relative else errors
        assert loss.value.item() == pytest.approx(wanted.mean().item(), rel=1e-5)


TINY = replace(
    SMALL,
    outer=replace(SMALL.outer, n_iterations=4, report_every=2),
    learner_outer=replace(SMALL.learner_outer, n_iterations=4, report_every=2),
)


def test_a_ladder_is_one_result_with_the_share_of_right_answers_beside_the_error():
    sizes = (ContextModelConfig(n_layers=1, d_model=4), ContextModelConfig(n_layers=2, d_model=8))
    experiment = trained(replace(TINY, reader=None, sizes=sizes, test_within=0.5))
    assert list(experiment.loops) == ["1x4", "2x8", "maml"]
    assert set(experiment.watch("2x8")) == {"error_0", "error_2", "error_4"}
    measured = experiment.measure()
    by_quantity: dict[str, dict[str, Curve]] = {}
    for curve in measured.curves:
        by_quantity.setdefault(curve.quantity, {})[curve.learner] = curve
    errors, shares = by_quantity["squared error over d"], by_quantity["accuracy within 0.5"]
    assert list(errors) == list(shares)
    assert list(errors)[:4] == ["1x4", "2x8", "maml", "least squares"]
    assert all(curve.more_is_better for curve in shares.values())
    assert not any(curve.more_is_better for curve in errors.values())
    small, large, in_weights = (shares[name] for name in ("1x4", "2x8", "maml"))
    assert small.n_weights < large.n_weights
    assert small.training_flops < large.training_flops
    assert in_weights.n_weights == 8 + 8 + 8 + 1
    assert large.n_weights == sum(weight.numel() for weight in experiment.readers["2x8"].parameters())
    least_squares = [point.mean for point in shares["least squares"].points]
    assert least_squares[1:] == [1, 1, 1, 1]
    assert least_squares[0] == shares["predicting 0"].points[0].mean == pytest.approx(0.6, abs=0.08)  # |w x| < 0.5
    assert [(point.n_examples, point.n_steps) for point in in_weights.points] == [
        (point.n_examples, point.n_steps) for point in errors["maml"].points
    ]
    assert all(0 <= point.low <= point.high <= 1 for curve in shares.values() for point in curve.points)


def test_each_seed_has_weights_and_a_test_of_its_own():
    experiments = [Experiment(TINY, seed) for seed in (0, 1)]
    for name in ("context", "maml"):
        weights = [next(iter(experiment.loops[name].learned.values())) for experiment in experiments]
        assert not torch.equal(*weights)
        assert [experiment.loops[name].config.seed for experiment in experiments] == [0, 1]
    nearest = [
        [curve.points for curve in experiment.measure().curves if curve.learner == "averaging"]
        for experiment in experiments
    ]
    assert nearest[0] != nearest[1]


KNOWN = replace(
    TINY, n_dims=2, noise=0.5, n_known=3, learner=LearnerConfig(algorithm="context"), test_tasks=2500, test_within=0.5
)


def test_a_pool_is_drawn_by_the_seed_and_training_draws_from_it():
    pools = [Experiment(KNOWN, seed).known for seed in (0, 0, 1)]
    assert pools[0].shape == (3, 2, 1)
    assert torch.equal(pools[0], pools[1])
    assert not torch.equal(pools[0], pools[2])
    drawn = Experiment(KNOWN).tasks.draw(500, 40, 1, torch.Generator().manual_seed(0))
    fitted = torch.linalg.lstsq(drawn.support_x, drawn.support_y).solution
    nearest = (fitted[:, None] - pools[0]).norm(dim=(2, 3)).min(1)
    assert nearest.values.max() < 0.5  # each is a function of the pool
    assert set(nearest.indices.tolist()) == {0, 1, 2}


def test_known_functions_are_best_retrieved_and_fresh_ones_best_inferred():
    curves = Experiment(KNOWN).measure().curves
    errors = {
        family: {curve.learner: curve for curve in curves if (curve.tasks, curve.more_is_better) == (family, False)}
        for family in ("known", "fresh")
    }
    for family, best in (("known", "retrieve"), ("fresh", "ridge")):
        by_learner = errors[family]
        assert list(by_learner)[:3] == ["context", "retrieve", "ridge"]
        assert [name for name, curve in by_learner.items() if curve.kind == "bound"] == [best]
        for name, curve in by_learner.items():
            if name != best:
                pairs = list(zip(by_learner[best].points, curve.points, strict=True))[1:]
                assert all(first.mean < other.mean for first, other in pairs), name
    assert errors["known"]["retrieve"].points[0].mean < errors["known"]["ridge"].points[0].mean
    assert {curve.tasks for curve in curves} == {"known", "fresh"}


def test_the_command_trains_both_learners_and_measures(tmp_path, capsys):
    few = ["--n_dims", "2", "--n_examples", "3", "--test_tasks", "20", "--test_steps", "[1]"]
    few += [
        "--outer.n_iterations",
        "4",
        "--learner_outer.n_iterations",
        "3",
        "--reader.d_model",
        "8",
        "--learner.n_support",
        "2",
    ]
    assert main(["meta", "regression", *few, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"context", "maml"} == set(result["history"])
    assert result["curves"][0]["learner"] == "context"
    assert {path.name for path in tmp_path.iterdir()} >= {"context.safetensors", "maml.safetensors", "result.json"}


@pytest.mark.parametrize("path", sorted(RUNS.glob("meta_regression*.yaml")), ids=lambda path: path.stem)
def test_the_runs_on_file_make_an_experiment_that_learns_in_context(path):
    experiment = Experiment(configure("regression", read_yaml(path)))
    assert experiment.loops["context"].config.n_iterations >= 5000
    assert experiment.config.test_tasks >= 2000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"functions": "linnear"}, "functions is 'linnear', allowed: linear, sinusoid"), ({"n_dims": 0}, "n_dims is 0"),
     ({"n_beyond": -1}, "n_beyond is -1"),
     ({"noise": -1.0}, "noise is -1"),
     ({"noise": 1e-9}, "noise is 1e-09, must be 0 or at least 0.0001"),
     ({"functions": "sinusoid", "noise": 0.5}, "a sinusoid has none"),
     ({"test_tasks": 1}, "test_tasks is 1"), ({"test_steps": ()}, "test_steps"), ({"test_steps": (0,)}, "test_steps"),
     ({"n_examples": 4}, "n_support is 5, must be at most n_examples, 4"),
     ({"learner": LearnerConfig(name="context")}, "learner.name is 'context', which is that of the learner in context"),
     ({"n_known": 3}, "n_known is 3, which is for linear functions with noise above 0"),
     ({"n_known": 0, "noise": 0.5}, "n_known is 0"), ({"test_within": 0.0}, "test_within is 0"),
     ({"seeds": 0}, "seeds is 0"),
     ({"sizes": ()}, "must be at least one"),
     ({"sizes": (ContextModelConfig(n_heads=2), ContextModelConfig())}, "each n_layers x d_model once"),
     ({"sizes": (ContextModelConfig(),), "reader": ContextModelConfig(n_layers=1)}, "both reader and sizes are given"),
     ({"sizes": (ContextModelConfig(),), "learner": LearnerConfig(name="4x32")}, "learner.name is '4x32'"),
     ({"reader": None, "learner": LearnerConfig(algorithm="context")}, "nothing is left to learn")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        Config(**wrong)
