from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.rare import Classes, Config, Experiment, Sequences, nearest_class, nearest_example

SMALL = Config(
    n_classes=12,
    n_dims=8,
    n_labels=4,
    n_pairs=4,
    burstiness=2,
    n_sequences=32,
    reader=ContextModelConfig(n_layers=2, d_model=16, n_heads=2, pattern="alternate(banded(2), dense)"),
    outer=OuterConfig(n_iterations=150, lr=1e-2, report_every=75),
    seeds=2,
    test_sequences=200,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_classes(classes: Classes, sequences: Sequences) -> torch.Tensor:
    """Return the trained class of every item; only for classes without noise."""
    distances = torch.cdist(sequences.items, classes.means)
    assert distances.amin(-1).max() < 1e-2
    return distances.argmin(-1)


def test_in_a_bursty_sequence_the_last_class_comes_burstiness_times_before_and_the_rest_of_the_others():
    classes = Classes(replace(SMALL, n_classes=5000, n_pairs=7, burstiness=3, noise=0, p_bursty=1), seed=0)
    drawn = drawn_classes(classes, classes.training(300, generator()))
    assert drawn.shape == (300, 8)
    counts = [(int((row[:-1] == row[-1]).sum()), sorted(Counter(row[:-1].tolist()).values())) for row in drawn]
    assert sum(count == (3, [1, 3, 3]) for count in counts) > 290  # else two bursts are of one class
    places = [tuple((row[:-1] == row[-1]).nonzero()[:, 0].tolist()) for row in drawn]
    assert len({burst for burst in places if len(burst) == 3}) == 7 * 6 * 5 // 6  # they stand anywhere


def test_a_share_of_sequences_is_bursty_and_in_the_others_every_class_is_drawn_by_itself():
    classes = Classes(replace(SMALL, n_classes=5000, noise=0, p_bursty=0.7), seed=0)
    drawn = drawn_classes(classes, classes.training(2000, generator()))
    shown = (drawn[:, :-1] == drawn[:, -1:]).sum(1)
    assert (shown == 2).float().mean().item() == pytest.approx(0.7, abs=0.03)
    assert (shown == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_trained_classes_keep_mean_and_label_and_items_have_the_noise_of_the_formula():
    classes = Classes(replace(SMALL, noise=0.5, n_dims=2000), seed=3)
    sequences = classes.training(50, generator())
    nearest = torch.cdist(sequences.items, classes.means).argmin(-1)
    assert torch.equal(classes.labels[nearest], sequences.labels)
    assert torch.bincount(classes.labels).tolist() == [3, 3, 3, 3]
    noise = sequences.items * 1.25**0.5 - classes.means[nearest]
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert sequences.items.std().item() == pytest.approx(1.0, rel=0.05)


def test_classes_come_as_often_as_zipf_says():
    classes = Classes(replace(SMALL, n_classes=3, zipf=2.0, noise=0), seed=0)
    drawn = drawn_classes(classes, classes.training(4000, generator()))
    shares = torch.bincount(drawn[:, -1], minlength=3) / 4000
    assert shares.tolist() == pytest.approx([36 / 49, 9 / 49, 4 / 49], abs=0.02)


def test_a_test_sequence_can_be_answered_from_the_context_alone_or_from_training_alone():
    classes = Classes(replace(SMALL, n_classes=400, n_dims=16, n_labels=8), seed=1)
    for test, in_context, in_weights in (("new", 1, 1 / 8), ("in_weights", 1 / 8, 1), ("relabelled", 1, 0)):
        sequences = getattr(classes, test)(3000, generator())
        assert nearest_example(sequences).float().mean().item() == pytest.approx(in_context, abs=0.03), test
        assert nearest_class(sequences, classes).float().mean().item() == pytest.approx(in_weights, abs=0.03), test


def test_new_classes_have_different_labels_and_the_absent_class_is_absent():
    classes = Classes(replace(SMALL, n_classes=3, noise=0), seed=1)
    new = classes.new(200, generator())
    assert all(sorted(Counter(row[:-1].tolist()).values()) == [2, 2] for row in new.labels)
    assert set(new.labels[:, -1].tolist()) == {0, 1, 2, 3}
    absent = drawn_classes(classes, classes.in_weights(200, generator()))
    assert not (absent[:, :-1] == absent[:, -1:]).any()
    assert set(absent[:, -1].tolist()) == {0, 1, 2}


def test_few_classes_are_learned_in_weights_and_every_seed_has_its_own():
    experiment = Experiment(replace(SMALL, n_classes=4))
    assert list(experiment.loops) == ["context_0", "context_1"]
    assert not torch.equal(experiment.classes[0].means, experiment.classes[1].means)
    for name, loop in experiment.loops.items():
        rows = list(loop.run(lambda name=name: experiment.watch(name)))
        assert [row["iteration"] for row in rows] == [75, 150]
        assert rows[-1]["in_weights"] > 0.95
        assert rows[-1]["relabelled"] < 0.1
        assert rows[-1]["new"] < 0.6
    measured = experiment.measure()
    curves = {(curve.tasks, curve.learner): curve for curve in measured.curves}
    assert len(curves) == 9
    (point,) = curves["in weights", "context"].points
    assert (point.n_examples, point.n) == (4, 2)
    assert point.mean > 0.95
    assert point.high <= 1
    assert curves["new classes", "context"].training_flops > 150 * 32 * point.flops > 0
    assert curves["relabelled", "nearest example"].points[0].flops is None


def test_the_loss_is_that_of_the_last_label_and_a_model_never_sees_it():
    experiment = Experiment(SMALL)
    sequences = experiment.classes[1].training(32, generator(7))
    logits = experiment.models[1](sequences.items, sequences.labels[:, :-1])
    assert logits.shape == (32, 4)
    expected = -logits.log_softmax(-1)[range(32), sequences.labels[:, -1]].mean()
    assert experiment.loops["context_1"].step(generator(7), 0.0).value.item() == pytest.approx(expected.item())


def test_intervals_of_one_seed_are_over_sequences_and_stay_within_0_and_1():
    measured = Experiment(replace(SMALL, seeds=1)).measure()
    assert {curve.points[0].n for curve in measured.curves} == {200}
    assert all(0 <= curve.points[0].low <= curve.points[0].high <= 1 for curve in measured.curves)


def test_the_command_trains_and_follows_the_three_tests(tmp_path, capsys):
    few = ["--n_classes", "40", "--outer.n_iterations", "2", "--outer.report_every", "1", "--test_sequences", "9"]
    few += ["--reader.d_model", "8", "--reader.pattern", "dense", "--positions", "learned", "--seeds", "2"]
    assert main(["meta", "rare", *few, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["history"]["context_1"][0]) == {"iteration", "loss", "new", "in_weights", "relabelled"}
    assert [curve["tasks"] for curve in result["curves"][::3]] == ["new classes", "in weights", "relabelled"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"n_classes": 1}, "n_classes is 1, must be from 2"), ({"noise": -1.0}, "noise is -1"),
     ({"zipf": 99.0}, "zipf is 99"), ({"burstiness": 9}, "burstiness is 9, must be from 1 to n_pairs, 8"),
     ({"p_bursty": 1.1}, "p_bursty is 1.1"), ({"n_labels": 1}, "n_labels is 1, must be at least 2"),
     ({"n_labels": 7, "burstiness": 1}, "n_labels is 7, must be at least 8"), ({"seeds": 0}, "seeds is 0"),
     ({"test_sequences": 1}, "test_sequences is 1")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        Config(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"positions": "columns"}, "positions is 'columns'"), ({"n_classes": 2**24, "n_dims": 10**6}, "n_classes"),
     ({"reader": ContextModelConfig(pattern="bandid(2)")}, "bandid")],
)  # fmt: skip
def test_a_reader_or_classes_that_cannot_be_made_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        Experiment(replace(SMALL, **wrong))
