from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.cli.main import main
from fewshot.meta.episodes import Episodes
from fewshot.meta.learners.in_context import ContextModelConfig
from fewshot.meta.learners.weight_learner import LearnerConfig
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.boolean import Config, Experiment, boolean_functions, logistic_loss, right

SMALL = Config(
    n_dims=2,
    n_variables=(1,),
    n_examples=6,
    n_tasks=32,
    reader=ContextModelConfig(n_layers=2, d_model=16, n_heads=2, init_std=0.3),
    outer=OuterConfig(n_iterations=250, report_every=125, lr=1e-2, warmup=20, clip_norm=1.0),
    learner=LearnerConfig(n_tasks=8, n_support=5, step_size=0.1),
    learner_outer=OuterConfig(n_iterations=3, report_every=3),
    widths=(8,),
    test_tasks=300,
    test_steps=(1,),
)
NO_WEIGHTS = LearnerConfig(name="context", algorithm="context")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_words(functions: str, n_dims: int, size: int) -> dict[tuple[int, ...], list[int]]:
    """Return the functions of a class by what tells them apart, as their answers to all inputs in order."""
    inputs = [tuple(1 if number >> bit & 1 else -1 for bit in range(n_dims)) for number in range(2**n_dims)]
    table = {}
    for variables in itertools.combinations(range(n_dims), size):
        for signs in itertools.product((1, -1), repeat=size) if functions == "conjunction" else [(1,) * size]:
            signed = [[x[v] * sign for v, sign in zip(variables, signs, strict=True)] for x in inputs]
            true = {
                "conjunction": lambda values: min(values) == 1,
                "majority": lambda values: sum(values) > 0,
                "parity": lambda values: values.count(1) % 2 == 1,
            }[functions]
            table[*variables, *signs] = [1 if true(values) else -1 for values in signed]
    return table


@pytest.mark.parametrize(("functions", "size", "n"), [("conjunction", 2, 24), ("majority", 3, 4), ("parity", 2, 6)])
def test_a_class_holds_each_of_its_functions_once(functions, size, n):
    table = boolean_functions(functions, 4, (size,))
    rows = sorted(map(tuple, table.answers.int().tolist()))
    assert rows == sorted(map(tuple, in_words(functions, 4, size).values()))
    assert len(rows) == len(set(rows)) == n
    assert table.inputs[0b0110].tolist() == [-1, 1, 1, -1]
    assert table.numbers(table.inputs[None]).tolist() == [list(range(16))]


def test_several_numbers_of_variables_give_one_class():
    assert len(boolean_functions("parity", 5, (2, 3)).answers) == 10 + 10
    assert len(boolean_functions("conjunction", 3, (1, 2)).answers) == 6 + 12


def test_examples_have_the_answers_of_a_function_and_half_of_them_are_true():
    functions = boolean_functions("conjunction", 5, (3,))
    drawn = functions.draw(2000, 9, 3, generator())
    assert drawn.support_x.shape == (2000, 9, 5)
    assert drawn.query_y.shape == (2000, 3, 1)
    whole = drawn.all_as_query()
    answers = functions.answers.T[functions.numbers(whole.query_x)]
    fits = (answers == whole.query_y).all(1)
    assert fits.any(1).all()
    certain = fits[fits.sum(1) == 1].float().mean(0)  # about as often each of the 80
    assert certain.max() < 3 / 80
    assert certain.min() > 0.2 / 80
    assert (whole.query_y > 0).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_inputs_with_the_same_answer_are_as_likely():
    functions = boolean_functions("conjunction", 3, (2,))
    only = replace(functions, answers=functions.answers[:1])
    numbers = only.numbers(only.draw(1, 20_000, 1, generator()).support_x)
    shares = torch.bincount(numbers[0], minlength=8) / 20_000
    wanted = torch.where(only.answers[0] > 0, 1 / 4, 1 / 12)
    assert shares.tolist() == pytest.approx(wanted.tolist(), abs=0.01)


@pytest.mark.parametrize(
    ("functions", "sizes"), [("conjunction", (2,)), ("conjunction", (1, 3)), ("majority", (1, 3)), ("parity", (1, 2))]
)
def test_the_ideal_learner_is_bayes_over_all_functions(functions, sizes):
    """Bayes by hand: the probability of all examples and of the query with either answer, over all functions."""
    table = [answers for size in sizes for answers in in_words(functions, 3, size).values()]
    made = boolean_functions(functions, 3, sizes)
    drawn = made.draw(20, 4, 1, generator(1)).all_as_query()
    x, y = drawn.query_x, drawn.query_y
    predicted = made.ideal(x, y)
    for task in range(20):
        pairs = [(int(i), int(label)) for i, label in zip(made.numbers(x[task]), y[task, :, 0], strict=True)]
        for k, (query, _) in enumerate(pairs):
            joint = {
                label: sum(
                    torch.tensor([(f[i] == want) / f.count(f[i]) for i, want in [*pairs[:k], (query, label)]]).prod()
                    for f in table
                )
                for label in (1, -1)
            }
            wanted = (joint[1] - joint[-1]) / (joint[1] + joint[-1])
            assert predicted[task, k, 0].item() == pytest.approx(wanted.item(), abs=1e-5)


def test_the_ideal_learner_is_the_same_in_parts(monkeypatch):
    functions = boolean_functions("majority", 5, (3,))
    drawn = functions.draw(7, 4, 1, generator()).all_as_query()
    whole = functions.ideal(drawn.query_x, drawn.query_y)
    monkeypatch.setattr("fewshot.meta.tasks.boolean.AT_ONCE", 3 * 5 * 10)
    assert torch.equal(functions.ideal(drawn.query_x, drawn.query_y), whole)


def test_a_guess_is_half_right_and_the_loss_is_that_of_log_odds():
    predicted, y = torch.tensor([[2.0], [-1.0], [0.0]]), torch.tensor([[1.0], [1.0], [-1.0]])
    assert right(predicted, y).tolist() == [1, 0, 0.5]
    wanted = -torch.sigmoid(predicted * y).log().mean()
    assert logistic_loss(predicted, y).item() == pytest.approx(wanted.item())


def test_functions_are_learned_in_context_almost_as_well_as_possible():
    experiment = Experiment(SMALL)
    assert list(experiment.loops) == ["context", "maml"]
    for name, loop in experiment.loops.items():
        rows = list(loop.run(lambda name=name: experiment.watch(name)))
        watched = {"accuracy_0", "accuracy_3", "accuracy_6"} if name == "context" else set()
        assert set(rows[-1]) == {"iteration", "loss"} | watched
    measured = experiment.measure()
    assert (measured.tasks, measured.quantity, measured.more_is_better) == (
        "conjunction of Boolean variables", "accuracy", True
    )  # fmt: skip
    curves = {curve.learner: curve for curve in measured.curves}
    assert {name: curve.kind for name, curve in curves.items()} == {
        "context": "context",
        "maml": "weights",
        "ideal": "bound",
        "3 nearest neighbours": "baseline",
        "more frequent answer": "baseline",
    }
    assert all(curve.more_is_better for curve in curves.values())
    shares = {name: [point.mean for point in curve.points] for name, curve in curves.items()}
    steps = [(point.n_examples, point.n_steps) for point in curves["maml"].points]
    assert steps == [(0, 0), (5, 1), (6, 1)]
    assert shares["context"][0] == pytest.approx(0.5, abs=0.1)
    assert shares["more frequent answer"] == pytest.approx([0.5] * 7, abs=0.1)
    assert shares["3 nearest neighbours"][6] < 0.9 < shares["context"][6] <= shares["ideal"][6] + 0.02
    for curve in curves.values():
        assert all(0 <= point.low <= point.high <= 1 and point.n == 300 for point in curve.points)
    assert curves["context"].training_flops > 250 * 32 * curves["context"].points[6].flops > 0


def test_each_seed_has_weights_and_a_test_of_its_own():
    made = [Experiment(replace(SMALL, learner=NO_WEIGHTS), seed) for seed in (0, 1)]
    assert [list(experiment.loops) for experiment in made] == [["context"]] * 2
    assert not torch.equal(*(next(iter(experiment.readers["context"].parameters())) for experiment in made))
    neighbours = [experiment.measure().curves[2].points for experiment in made]
    assert neighbours[0] != neighbours[1]


def test_a_learner_in_weights_sees_the_same_functions():
    experiment = Experiment(SMALL)
    assert experiment.learners.in_weights.tasks is experiment.tasks
    drawn: Episodes = experiment.tasks.draw(3, 2, 2, generator())
    assert set(drawn.support_x.unique().tolist()) == {-1, 1}


def test_the_command_gives_the_mean_over_seeds(tmp_path, capsys):
    few = ["--functions", "parity", "--n_dims", "4", "--n_variables", "[2]", "--n_examples", "3", "--seeds", "2"]
    few += ["--outer.n_iterations", "2", "--outer.report_every", "1", "--reader.d_model", "8", "--test_tasks", "9"]
    assert main(["meta", "boolean", *few, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["history"]) == {"context_0", "context_1"}
    assert result["tasks"] == "parity of Boolean variables"
    assert {point["n"] for curve in result["curves"] for point in curve["points"]} == {2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"functions": "conjuction"}, "'conjuction'; nearest: 'conjunction'"), ({"n_dims": 0}, "n_dims is 0"),
     ({"n_dims": 17}, "n_dims is 17, must be from 1 to 16"), ({"n_variables": ()}, r"n_variables is \[\]"),
     ({"n_dims": 2}, r"n_variables is \[3\], must hold different numbers from 1 to n_dims, 2"),
     ({"n_variables": (2, 2)}, "different numbers"), ({"n_variables": (0,)}, "from 1"),
     ({"functions": "majority", "n_variables": (4,)}, "odd numbers"),
     ({"learner": LearnerConfig(name="context")}, "learner.name is 'context'"),
     ({"test_tasks": 1}, "test_tasks is 1"), ({"seeds": 0}, "seeds is 0")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(BadValue, match=message):
        Config(**wrong)


def test_a_class_that_does_not_fit_into_memory_is_refused():
    with pytest.raises(BadValue, match=r"lower n_dims or n_variables"):
        Experiment(Config(n_dims=16, n_variables=(8,)))


def test_a_bad_setting_is_one_line(tmp_path, capsys):
    assert main(["meta", "boolean", "--n_variables", "[11]", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
