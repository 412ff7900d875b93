from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.meta.experiment import configure
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.learners.weight_learner import LearnerConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.chains import draw_chains
from fewshot.meta.tasks.markov import PREDICTORS, Config, Experiment, doubling

SMALL = Config(
    n_symbols=2,
    length=24,
    n_chains=32,
    reader=ContextModelConfig(n_layers=2, d_model=16, n_heads=1, init_std=0.08),
    outer=OuterConfig(n_iterations=300, report_every=20, lr=5e-3, warmup=20),
    test_chains=600,
    watched_chains=100,
)


def test_a_model_passes_from_uniform_by_unigram_to_bigram():
    experiment = Experiment(SMALL)
    before = experiment.watch("context")
    assert list(before) == ["kl_uniform", "kl_unigram", "kl_bigram"]
    rows = list(experiment.loops["context"].run(lambda: experiment.watch("context")))
    assert before["kl_uniform"] < before["kl_unigram"] < before["kl_bigram"]  # closest to uniform at first
    assert any(row["kl_unigram"] < min(row["kl_uniform"], row["kl_bigram"]) for row in rows)
    assert rows[-1]["kl_bigram"] < min(rows[-1]["kl_uniform"], rows[-1]["kl_unigram"], 0.04)
    measured = experiment.measure()
    curves = {curve.learner: curve for curve in measured.curves}
    assert [curve.kind for curve in curves.values()] == ["context", "context", "baseline", "baseline", "bound"]
    assert [point.n_examples for point in curves["context"].points] == [0, 1, 2, 4, 8, 16, 22]
    assert all(point.mean == 0 for point in curves["bigram"].points)
    assert all(point.low <= point.mean <= point.high and point.n == 600 for point in curves["context"].points)
    assert curves["context, mean till there"].points[-1].mean < 0.04 < curves["unigram"].points[-1].mean
    flops = [point.flops for point in curves["context"].points]
    assert None not in flops
    assert flops == sorted(flops)
    assert curves["context"].training_flops > 300 * 32 * flops[-1]


def test_chains_of_a_pool_follow_its_matrices_alone_and_the_seed_draws_it():
    pools = [Experiment(replace(SMALL, n_known=3), seed).known for seed in (0, 0, 1)]
    assert pools[0].shape == (3, 2, 2)
    assert torch.equal(pools[0], pools[1])
    assert not torch.equal(pools[0], pools[2])
    chains = draw_chains(300, 2000, n_symbols=2, generator=torch.Generator().manual_seed(0), known=pools[0])
    stays = ((chains[:, :-1] == 0) & (chains[:, 1:] == 0)).sum(1) / (chains[:, :-1] == 0).sum(1)
    nearest = (stays[:, None] - pools[0][:, 0, 0]).abs().min(1)
    assert nearest.values.max() < 0.1
    assert set(nearest.indices.tolist()) == {0, 1, 2}


def test_a_model_of_a_known_matrix_retrieves_it_and_fails_on_fresh_ones():
    experiment = Experiment(replace(SMALL, n_known=1, outer=replace(SMALL.outer, n_iterations=100)), seed=2)
    before = experiment.watch("context")
    *_, after = experiment.loops["context"].run(lambda: experiment.watch("context"))
    assert after["kl_retrieve"] < after["kl_bigram"] / 2 < before["kl_retrieve"]
    measured = experiment.measure()
    last = {(curve.tasks, curve.quantity, curve.learner): curve.points[-1].mean for curve in measured.curves}
    assert last["known", "mean nats from retrieve", "context"] < last["known", "mean nats from bigram", "context"] / 2
    assert last["fresh", "mean loss in nats", "context"] > last["fresh", "mean loss in nats", "bigram"] + 0.1
    for family, best, other in (("known", "retrieve", "bigram"), ("fresh", "bigram", "retrieve")):
        losses = {name: last[family, "mean loss in nats", name] for name in ("context", *PREDICTORS, "retrieve")}
        assert losses[best] == min(losses.values())
        assert last[family, f"mean nats from {best}", best] == pytest.approx(0, abs=1e-6)
        excess = losses[other] - losses[best]  # what a divergence from the best predictor is on average
        assert excess == pytest.approx(last[family, f"mean nats from {best}", other], abs=0.02)
    bounds = {
        (curve.tasks, curve.learner) for curve in measured.curves if curve.kind == "bound" and "loss" in curve.quantity
    }
    assert bounds == {("known", "retrieve"), ("fresh", "bigram")}
    context = [curve for curve in measured.curves if curve.learner == "context"]
    assert len(context) == 6
    assert all(curve.training_flops > 0 and curve.points[-1].flops > 0 for curve in context)


IN_WEIGHTS = replace(
    SMALL,
    outer=OuterConfig(n_iterations=1),
    learner=LearnerConfig(n_tasks=32, n_support=22, n_query=10, n_steps=3, step_size=1.0),
    learner_outer=OuterConfig(n_iterations=80, report_every=80, lr=1e-2),
    widths=(8,),
    test_chains=100,
    test_steps=(1, 3),
)


def trained(config: Config, seed: int = 0) -> Experiment:
    experiment = Experiment(config, seed)
    for name, loop in experiment.loops.items():
        list(loop.run(lambda name=name: experiment.watch(name)))
    return experiment


def test_a_chain_is_learned_by_gradient_steps_on_its_transitions_and_judged_as_by_reading():
    experiment = trained(IN_WEIGHTS)
    assert list(experiment.loops) == ["context", "maml"]
    assert set(experiment.loops["maml"].history[-1]) == {"iteration", "loss"}
    measured = experiment.measure()
    curves = {curve.learner: curve for curve in measured.curves}
    assert list(curves) == ["context", "context, mean till there", "maml", "uniform", "unigram", "bigram"]
    maml = curves["maml"]
    assert maml.kind == "weights"
    assert [(point.n_examples, point.n_steps) for point in maml.points] == [
        (0, 0), *((k, n) for k in (1, 2, 4, 8, 16, 22) for n in (1, 3))
    ]  # fmt: skip
    assert [point.n_examples for point in curves["context"].points] == sorted({p.n_examples for p in maml.points})
    assert maml.n_weights == (2 + 1) * 8 + (8 + 1) * 2
    assert maml.training_flops > 0
    flops = {point.n_steps: point.flops for point in maml.points}
    assert 0 < flops[0] < flops[1] < flops[3]
    after = {(point.n_examples, point.n_steps): point.mean for point in maml.points}
    assert after[0, 0] < 0.05  # nothing is known, and this it has learned
    assert after[22, 3] < min(after[22, 1], curves["unigram"].points[-1].mean)


def test_without_steps_a_place_is_predicted_by_the_start_and_with_some_by_adapted_weights():
    experiment = Experiment(replace(IN_WEIGHTS, length=6, learner=replace(IN_WEIGHTS.learner, n_support=4)))
    chains = experiment._unseen("test", 3)
    after = experiment._adapted_logprobs(chains)
    network = experiment.in_weights.module
    start = network(torch.eye(2)).log_softmax(-1)[chains[:, :-1]]
    assert {n_steps: tuple(logprobs.shape) for n_steps, logprobs in after.items()} == {1: (3, 5, 2), 3: (3, 5, 2)}
    assert torch.allclose(after[3][:, 0], start[:, 0], atol=1e-6)
    here, following = torch.eye(2)[chains[1, :4]], chains[1, 1:5]
    loss = torch.nn.functional.cross_entropy(network(here), following)
    for weight, gradient in zip(network.parameters(), torch.autograd.grad(loss, network.parameters()), strict=True):
        weight.data -= gradient  # of the size of a step, 1
    assert torch.allclose(after[1][1, 4], network(torch.eye(2)[chains[1, 4]]).log_softmax(-1), atol=1e-5)


def test_with_a_pool_the_learner_in_weights_has_every_quantity_of_both_families():
    measured = trained(replace(IN_WEIGHTS, n_known=1), seed=2).measure()
    last = {(curve.tasks, curve.quantity, curve.learner): curve.points[-1].mean for curve in measured.curves}
    learners = ["context", "maml", "uniform", "unigram", "bigram", "retrieve"]
    assert [curve.learner for curve in measured.curves] == 6 * learners  # two families, three quantities
    for family, best in (("known", "retrieve"), ("fresh", "bigram")):
        excess = last[family, "mean loss in nats", "maml"] - last[family, "mean loss in nats", best]
        assert excess > 0
        assert excess == pytest.approx(last[family, f"mean nats from {best}", "maml"], abs=0.02)


def test_a_published_learner_is_trained_beside_the_reader_only_if_named(tmp_path, capsys):
    few = ["--length", "9", "--test_chains", "20", "--outer.n_iterations", "2", "--seeds", "2"]
    few += ["--learner_outer.n_iterations", "2", "--learner.n_support", "7"]
    assert main(["meta", "markov", "--learner", "maml", *few, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["history"]) == ["context_0", "maml_0", "context_1", "maml_1"]
    (maml,) = (curve for curve in result["curves"] if curve["learner"] == "maml")
    assert {point["n"] for point in maml["points"]} == {2}
    assert list(Experiment(configure("markov", {})).loops) == ["context"]


@pytest.mark.parametrize("name", ["fomaml", "anil", "meta-sgd", "maml++", "pretrain"])
def test_every_learner_by_gradient_steps_fits(name):
    few = {"n_iterations": 2, "report_every": 1}
    settings = {
        "learner": {"name": name, "n_support": 5, "n_tasks": 4},
        "learner_outer": few,
        "outer": few,
        "length": 7,
    }
    experiment = trained(configure("markov", {**settings, "test_chains": 5}))
    (curve,) = (curve for curve in experiment.measure().curves if curve.kind == "weights")
    assert (curve.learner, curve.points[-1].n_examples) == (name, 5)


def test_doubling_ends_with_the_last():
    assert doubling(0) == [0]
    assert doubling(1) == [0, 1]
    assert doubling(8) == [0, 1, 2, 4, 8]
    assert doubling(98) == [0, 1, 2, 4, 8, 16, 32, 64, 98]


def test_the_command_trains_and_measures(tmp_path, capsys):
    few = ["--length", "9", "--test_chains", "20", "--outer.n_iterations", "3", "--outer.report_every", "1"]
    assert main(["meta", "markov", *few, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["iteration"] for row in result["history"]["context"]] == [1, 2, 3]
    assert result["curves"][0]["points"][-1]["n_examples"] == 7


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"n_symbols": 1}, "n_symbols is 1"), ({"length": 1}, "length is 1"), ({"test_chains": 1}, "test_chains is 1"),
     ({"n_known": 0}, "n_known is 0"), ({"seeds": 0}, "seeds is 0"),
     ({"n_chains": 0}, "n_chains is 0"), ({"threads": 0}, "threads is 0"), ({"test_steps": ()}, r"test_steps is \[\]"),
     ({"test_steps": (0,)}, r"test_steps is \[0\]"),
     ({"learner": LearnerConfig(n_support=99)}, "learner.n_support is 99, must be at most length - 2, 98"),
     ({"learner": LearnerConfig(algorithm="reptile")}, "give another learner"),
     ({"learner": LearnerConfig(name="bigram")}, "learner.name is 'bigram', which is that of another curve"),
     ({"learner": LearnerConfig(name="context")}, "learner.name is 'context'")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        Config(**wrong)
