from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.markov import PREDICTORS, Config, Experiment, doubling, draw_chains

SMALL = Config(
    n_symbols=2,
    length=24,
    n_chains=32,
    reader=ContextModelConfig(n_layers=2, d_model=16, n_heads=1, init_std=0.08),
    outer=OuterConfig(n_iterations=300, report_every=20, lr=5e-3, warmup=20),
    test_chains=600,
    watched_chains=100,
)


def test_chains_follow_matrices_that_are_uniform_over_all_there_are():
    chains = draw_chains(3000, 400, n_symbols=3, generator=torch.Generator().manual_seed(0))
    assert chains.shape == (3000, 400)
    first = torch.bincount(chains[:, 0], minlength=3) / 3000
    assert first.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    stays = (chains[:, :-1] == 0) & (chains[:, 1:] == 0)
    share = stays.sum(1) / (chains[:, :-1] == 0).sum(1).clamp_min(1)
    often = (chains[:, :-1] == 0).sum(1) > 60  # a share of a Dirichlet(1) of three is Beta(1, 2)
    assert share[often].mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert share[often].var().item() == pytest.approx(1 / 18, abs=0.012)


def test_chains_come_from_the_generator_alone():
    drawn = [draw_chains(4, 9, n_symbols=3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


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
     ({"n_chains": 0}, "n_chains is 0"), ({"threads": 0}, "threads is 0")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        Config(**wrong)


def test_a_kind_without_learners_refuses_one(capsys):
    assert main(["meta", "markov", "--learner", "maml"]) == 2
    assert "markov has no learner to choose" in capsys.readouterr().err
