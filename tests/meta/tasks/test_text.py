"""One checkpoint under the learners of `fewshot meta text`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewshot.base.config import read_yaml
from fewshot.base.rng import seed_of
from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.meta.experiment import configure
from fewshot.meta.learners.finetune import FineTuning
from fewshot.meta.learners.weight_learner import LearnerConfig, learner_options
from fewshot.meta.outer_loop import OuterConfig
from fewshot.meta.tasks.text import Config, Experiment
from fewshot.meta.tasks.text_tasks import answer_loss, prompts
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    run, tokenizer = tmp_path_factory.mktemp("run"), Bytes()
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 8, "n_heads": 2, "n_ctx": 48, "pattern": "alternate(banded(2), dense)"}
    save(run, GPT(GPTConfig(n_vocab=tokenizer.n_vocab, **shape)), step=1)
    tokenizer.save(run / "tokenizer.json")
    return run


def config(run: Path, **changes) -> Config:
    given = {
        "run": str(run),
        "tasks": ("novel_symbols", "hidden_letter"),
        "shots": (1, 3),
        "seeds": 2,
        "learner": LearnerConfig(
            n_tasks=4, n_support=3, n_query=2, n_steps=2, step_size=0.1, step_sizes="layer", compile="untraced"
        ),
        "outer": OuterConfig(n_iterations=4, lr=0.01, report_every=2),
        "finetune": FineTuning(sgd=(0.1, 0.3), adam=(), steps=(1, 2), tasks=3),
        "test_steps": (2,),
        "test_tasks": 3,
        "test_query": 2,
    }
    return Config(**{**given, **changes})


def test_all_learners_are_measured_on_the_same_k_from_each_seed(checkpoint):
    experiment = Experiment(config(checkpoint))
    assert list(experiment.loops) == ["maml_0", "maml_1", "reader_0", "reader_1"]
    for loop in experiment.loops.values():
        list(loop.run())
    measured = experiment.measure()
    learners = ("prompt", "fine-tuning", "maml", "reader", "ideal")
    curves = {(curve.tasks, curve.learner): curve for curve in measured.curves}
    assert list(curves) == [(task, learner) for task in ("novel_symbols", "hidden_letter") for learner in learners]
    assert all([point.n_examples for point in curve.points] == [1, 3] for curve in curves.values())
    assert all(
        point.n == 2 and 0 <= point.low <= point.mean <= point.high <= 1 for c in curves.values() for point in c.points
    )
    for task in ("novel_symbols", "hidden_letter"):
        read, tuned, maml = (curves[task, learner] for learner in ("prompt", "fine-tuning", "maml"))
        assert [point.flops for point in curves[task, "reader"].points] == [point.flops for point in read.points]
        assert read.points[0].flops < read.points[1].flops < maml.points[1].flops
        assert {point.n_steps for point in maml.points} == {2}
        assert {point.n_steps for point in read.points} == {0}
        assert all(point.n_steps in (1, 2) and point.flops > 0 for point in tuned.points)
        assert read.training_flops is None
        assert maml.training_flops > 4 * maml.points[0].flops
    kinds = {curve.learner: curve.kind for curve in measured.curves}
    assert kinds == dict(zip(learners, ("context", "weights", "weights", "context", "bound"), strict=True))
    assert measured.more_is_better


def test_a_prompts_flops_are_those_of_its_matrix_products(checkpoint):
    """4 D^2 of attention and 8 D^2 of the feed-forward layer a position and layer, T^2 D twice, V D for the logits."""
    experiment = Experiment(config(checkpoint, tasks=("novel_symbols",), shots=(3,), reader_lr=None))
    flops = experiment.measure().curves[0].points[0].flops
    D, V, n_layers = 8, Bytes().n_vocab, 2
    T = 1 + 3 * 4 + 3  # <|endoftext|>, three lines, "q t" without the line break that is asked for
    assert flops == 2 * (n_layers * (12 * D * D * T + 2 * T * T * D) + V * D * T)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_training_in_first_order_takes_fewer_flops_than_in_second_and_goes_through_sdpa(checkpoint):
    def flops(learner: str, kernel: str) -> float:
        few = {"n_tasks": 2, "n_support": 3, "n_query": 1, "compile": "untraced"}
        settings = LearnerConfig(**{**learner_options(learner), **few})
        given = config(checkpoint, learner=settings, kernel=kernel, shots=(3,), test_steps=(1,), reader_lr=None)
        return Experiment(given)._training_flops()[learner]

    assert flops("fomaml", "sdpa") == flops("fomaml", "reference") < 0.7 * flops("maml", "reference")


def test_reader_and_learner_in_weights_are_given_the_same_tasks(checkpoint):
    experiment = Experiment(config(checkpoint))
    generator = torch.Generator().manual_seed(seed_of("meta", 0, 0))
    drawn = experiment.training.draw_texts(4, 3, 2, generator)
    x, y = prompts(experiment.tokenizer, drawn)
    wanted = answer_loss(experiment.model(x.flatten(0, 1)), y.flatten(0, 1))
    first = experiment.loops["reader_0"].step(torch.Generator().manual_seed(seed_of("meta", 0, 0)), 0.0)
    assert first.value.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_learners_begin_as_the_checkpoint_and_leave_it_as_it_is(checkpoint):
    experiment = Experiment(config(checkpoint))
    before = {name: weight.clone() for name, weight in experiment.model.state_dict().items()}
    starts = [learner.start.weights for learner in experiment.learners]
    assert all(torch.equal(start[name], before[name]) for start in starts for name in start)
    for loop in experiment.loops.values():
        list(loop.run())
    assert all(torch.equal(weight, before[name]) for name, weight in experiment.model.state_dict().items())
    assert not torch.equal(starts[0]["wte.weight"], before["wte.weight"])
    assert not torch.equal(starts[0]["wte.weight"], starts[1]["wte.weight"])


def test_the_number_of_steps_is_that_which_the_validation_tasks_are_best_with(checkpoint, set_in_module):
    experiment = Experiment(config(checkpoint, test_steps=(4, 1, 2)))
    told = {0: torch.tensor([[0.5, 0.0, 1.0], [0.5, 1.0, 0.0]]), 1: torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])}
    order = {id(learner.start): seed for seed, learner in enumerate(experiment.learners)}
    set_in_module(Experiment, "judge_adapted", lambda module, start, *others: told[order[id(start)]])
    assert experiment._best_steps(None) == 1  # all three come to 0.5
    told[1] = torch.tensor([[0.6, 0.5, 0.5]])
    assert experiment._best_steps(None) == 4


def test_weights_can_be_new_ones_by_seed_in_place_of_the_checkpoints(checkpoint):
    first, again = (Experiment(config(checkpoint, pretrained=False)) for _ in range(2))
    new = [learner.start.weights["wte.weight"] for learner in first.learners]
    assert not torch.equal(new[0], first.model.wte.weight)
    assert not torch.equal(new[0], new[1])
    assert torch.equal(new[1], again.learners[1].start.weights["wte.weight"])
    assert torch.equal(first.prompt_models[0].wte.weight, first.model.wte.weight)


FEW = ["--tasks", "[hidden_letter]", "--shots", "[2]", "--seeds", "2", "--outer.n_iterations", "2", "--test_tasks", "2",
       "--finetune.steps", "[1]", "--finetune.tasks", "1", "--learner.n_tasks", "2", "--learner.n_query", "1",
       "--learner.n_support", "2", "--learner.compile", "untraced", "--test_steps", "[1]"]  # fmt: skip


def test_the_run_file_is_the_default_and_what_is_not_said_stays_so():
    path = Path(__file__).parents[3] / "runs" / "meta_text.yaml"
    assert configure("text", read_yaml(path)) == configure("text", {}) == Config()
    fewer = configure("text", {"outer": {"n_iterations": 7}})
    assert fewer.outer == replace(Config().outer, n_iterations=7)


def test_the_command_takes_a_run_folder(checkpoint, tmp_path, capsys):
    assert main(["meta", "text", "--run", str(checkpoint), *FEW, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["quantity"] == "accuracy"
    assert len(result["curves"]) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--kernel", "sdpa"], "kernel 'sdpa' has no second derivative"),
     (["--kernel", "sdpa"], "use 'reference'"),
     (["--kernel", "native", "--learner", "fomaml"], "kernel 'native' cannot be differentiated for many tasks"),
     (["--kernel", "fast"], "unknown kernel 'fast'"),
     (["--tasks", "[novel_symbol]"], "nearest: 'novel_symbols'"), (["--tasks", "[]"], "tasks names no family"),
     (["--shots", "[0]"], "shots is [0]"), (["--test_steps", "[]"], "test_steps is []"),
     (["--shots", "[27]"], "shots"), (["--seeds", "1"], "intervals are over seeds"),
     (["--reader_lr", "0"], "reader_lr is 0"),
     (["--shots", "[9]", "--learner.n_support", "9"], "a prompt of 9 lines of hidden_letter has"),
     (["--learner", "context"], "context"), (["--run", "nowhere"], "nowhere does not exist")],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line_before_training(words, message, checkpoint, tmp_path, capsys):
    assert main(["meta", "text", "--run", str(checkpoint), *FEW, *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.safetensors"))


def test_shots_that_fit_are_named_where_others_do_not(checkpoint, tmp_path, capsys):
    words = ["meta", "text", "--run", str(checkpoint), *FEW, "--out", str(tmp_path)]
    many = ["--learner.n_support", "9", "--shots"]
    assert main([*words, *many, "[1,2,9]"]) == 2
    assert 'give --shots "[1,2]"' in capsys.readouterr().err
    assert main([*words, *many, "[9]"]) == 2
    assert "give fewer lines with --shots, or a run" in capsys.readouterr().err


def test_what_was_chosen_is_said_in_words(checkpoint, tmp_path, capsys):
    assert main(["meta", "text", "--run", str(checkpoint), *FEW, "--out", str(tmp_path)]) == 0
    messages = capsys.readouterr().err
    assert "{" not in messages
    assert "gradient steps: fine-tuning 1, maml 1" in messages


def test_a_run_is_known_by_its_weights_not_by_its_path(checkpoint, tmp_path, monkeypatch, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(checkpoint, run)

    def train(path: Path | str) -> int:
        return main(["meta", "text", "--run", str(path), *FEW, "--out", str(out)])

    assert train(run) == 0
    state = (out / "maml_0.safetensors").read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(run)
    shutil.copytree(run, tmp_path / "copy")
    for path in ("out/../run", "link", "copy"):
        assert train(path) == 0, path
    assert (out / "maml_0.safetensors").read_bytes() == state
    torch.manual_seed(1)
    shape = {"n_layers": 2, "d_model": 8, "n_heads": 2, "n_ctx": 48, "pattern": "alternate(banded(2), dense)"}
    save(run, GPT(GPTConfig(n_vocab=Bytes().n_vocab, **shape)), step=2)  # it was trained further
    capsys.readouterr()
    assert train(run) == 2
    assert "belongs to other settings (run is " in capsys.readouterr().err
