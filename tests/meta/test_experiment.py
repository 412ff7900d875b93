from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from fewshot.base.config import lay_over, read_yaml, to_plain
from fewshot.base.errors import BadValue, Diverged, UnknownName
from fewshot.checkpoint.save import save
from fewshot.cli.main import main
from fewshot.cli.meta import TASKS
from fewshot.meta.curves import Measured
from fewshot.meta.experiment import EXPERIMENTS, configure, measure, prepare, train
from fewshot.meta.folder import about_training
from fewshot.meta.state import read_state
from fewshot.meta.tasks.sinusoid import Experiment
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

RUNS = sorted((Path(__file__).parents[2] / "runs").glob("meta_*.yaml"))
SHORT = {"outer": {"n_iterations": 30, "report_every": 10}, "test_tasks": 5}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_is_a_configuration_of_its_kind(path):
    kind, given = path.stem.split("_")[1], read_yaml(path)
    config = configure(kind, given)
    assert config.outer.n_iterations == given["outer"]["n_iterations"]
    assert about_training({"test_tasks": 1, "outer": 2}, {}) == {"outer": 2}


def test_the_command_knows_every_kind():
    assert set(TASKS) == set(EXPERIMENTS)


def test_what_is_not_given_is_as_the_kind_has_it_and_a_name_stands_for_its_options():
    config = configure("omniglot", {"learner": {"name": "anil"}})
    assert (config.learner.adapts, config.learner.step_size, config.learner.n_tasks) == ("head.", 0.4, 32)
    assert configure("sinusoid", {"learner": {"name": "fomaml", "first_order_share": 0.5}}).learner.name == "fomaml"
    with pytest.raises(UnknownName, match="learner 'mamal'"):
        configure("sinusoid", {"learner": {"name": "mamal"}})


def test_what_is_broken_off_is_kept_and_goes_on_to_the_same_result(tmp_path):
    def run(folder: Path, stop_at: int | None) -> dict[str, torch.Tensor]:
        experiment = prepare("sinusoid", configure("sinusoid", SHORT))
        rows = train(experiment, folder, about=SHORT)
        for _, row in rows:
            if row["iteration"] == stop_at:
                rows.close()
        return dict(experiment.loops["maml"].learned)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = run(whole, None)
    run(cut, 20)
    resumed = run(cut, None)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_a_result_tells_settings_and_history(tmp_path):
    experiment = prepare("sinusoid", configure("sinusoid", SHORT))
    list(train(experiment, tmp_path, about=SHORT))
    measured = measure(experiment, tmp_path, about={"settings": SHORT})
    assert [row["iteration"] for row in measured.history["maml"]] == [10, 20, 30]
    assert measured.about == {"settings": SHORT}
    assert (tmp_path / "result.json").is_file()


SMALL = {
    "outer": {"n_iterations": 30, "report_every": 10},
    "learner": {"n_tasks": 2, "compile": "untraced"},
    "widths": [5],
}


def small() -> Experiment:
    return prepare("sinusoid", configure("sinusoid", SMALL))


def test_ctrl_c_stops_when_the_iteration_is_whole_and_training_goes_on_from_there(tmp_path):
    whole = small()
    rows = list(train(whole, tmp_path / "whole", about={}))
    cut = small()
    loop = cut.loops["maml"]
    step = loop.step

    def interrupted(*given):
        if loop.iteration == 14:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*given)

    loop.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(train(cut, tmp_path, about={}))
    assert loop.iteration == 15
    again = small()
    assert list(train(again, tmp_path, about={})) == rows[1:]
    ended = again.loops["maml"]
    assert ended.history == whole.loops["maml"].history
    assert all(torch.equal(tensor, ended.learned[name]) for name, tensor in whole.loops["maml"].learned.items())


def test_what_breaks_an_iteration_leaves_the_state_before_it(tmp_path):
    cut = small()
    loop = cut.loops["maml"]
    update = loop._update

    def broken(loss):
        update(loss)
        if loop.iteration == 14:
            raise KeyboardInterrupt

    loop._update = broken
    with pytest.raises(KeyboardInterrupt):
        list(train(cut, tmp_path, about={}))
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("stop_in", [9, 19, 29], ids=["a first row is due", "a second row is due", "at the end"])
def test_when_asked_to_stop_the_state_is_saved_before_anything_is_measured(stop_in, tmp_path, monkeypatch):
    whole = small()
    whole.watch = lambda name: {"seven": 7.0}
    rows = [row for _, row in train(whole, tmp_path / "whole", about={})]
    cut = small()
    loop = cut.loops["maml"]
    step, watched = loop.step, []
    cut.watch = lambda name: watched.append(loop.iteration) or {"seven": 7.0}

    def interrupted(*given):
        if loop.iteration == stop_in:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)

    loop.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(train(cut, tmp_path, about={}))
    assert stop_in + 1 not in watched
    again = small()
    again.watch = lambda name: {"seven": 7.0}
    later = [row for _, row in train(again, tmp_path, about={})]
    assert watched + [row["iteration"] for row in later] == [10, 20, 30]  # the row that was due comes now
    assert again.loops["maml"].history == rows


def test_a_state_is_written_by_the_clock_not_by_the_reports(tmp_path, set_in_module):
    whole = small()
    list(train(whole, tmp_path / "whole", about={}))
    set_in_module(train, "SAVE_EVERY", 0.0)
    often = small()
    loop = often.loops["maml"]
    save, saved = loop.save, []
    loop.save = lambda *args, **named: saved.append(loop.iteration) or save(*args, **named)
    rows = [row["iteration"] for _, row in train(often, tmp_path, about={})]
    assert rows == [10, 20, 30]
    assert set(saved) == set(range(1, 31))
    assert loop.history == whole.loops["maml"].history
    (tensors, facts), (wanted, others) = (
        read_state(folder / "maml.safetensors") for folder in (tmp_path, tmp_path / "whole")
    )
    assert facts == others
    assert all(torch.equal(tensors[name], tensor) for name, tensor in wanted.items())


def test_what_is_not_finite_is_not_written(tmp_path):
    lost = small()
    loop = lost.loops["maml"]
    step = loop.step

    def interrupted(*given):
        if loop.iteration == 14:
            loop.learned["weights.head.bias"].data.fill_(torch.inf)
            os.kill(os.getpid(), signal.SIGINT)
        return step(*given)

    loop.step = interrupted
    with pytest.raises(Diverged, match=r"after 15 iterations: lower learner.step_size or outer.lr"):
        list(train(lost, tmp_path, about={}))
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_failed_measurement_on_the_way_loses_no_iteration(tmp_path):
    failing = small()
    failing.watch = lambda name: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(train(failing, tmp_path, about={}))
    again = small()
    rows = [row["iteration"] for _, row in train(again, tmp_path, about={})]
    assert rows == [10, 20, 30]
    whole = small()
    list(train(whole, tmp_path / "whole", about={}))
    assert again.loops["maml"].history == whole.loops["maml"].history


HUGE = {
    "sinusoid": ["--widths", "[1000000000]"],
    "sinusoid, tasks": ["--learner.n_tasks", "1000000000000"],
    "sinusoid, examples": ["--learner.n_support", "1000000000000"],
    "sinusoid, unseen tasks": ["--test_tasks", "1000000000000"],
    "sinusoid, unseen examples": ["--test_query", "1000000000000"],
    "regression": ["--reader.d_model", "100000000"],
    "regression, dimensions": ["--n_dims", "1000000000000"],
    "regression, tasks": ["--n_tasks", "1000000000000"],
    "regression, examples": ["--n_examples", "1000000000000"],
    "regression, unseen tasks": ["--test_tasks", "1000000000000"],
    "markov": ["--reader.n_layers", "1000000000"],
    "markov, length": ["--length", "1000000000000"],
    "markov, symbols": ["--n_symbols", "100000000"],
    "markov, unseen chains": ["--test_chains", "1000000000000"],
    "markov, learner in weights": ["--learner", "maml", "--learner.n_tasks", "1000000000000"],
}


@pytest.mark.parametrize(("kind", "words"), HUGE.items())
def test_sizes_that_fit_into_no_memory_are_refused_at_once(kind, words, tmp_path, capsys):
    assert main(["meta", kind.partition(",")[0], *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "are free: lower" in error
    assert error.count("\n") == 1


# Predictions that are not finite have no figure: neither an accuracy nor an error

ONE_ITERATION = ["--outer.n_iterations", "1", "--learner.compile", "untraced"]
IMAGES = ["--n_ways", "3", "--data.n_bytes", "9", "--data.validation", "0", "--data.test", "0.4", "--test.n_tasks", "8",
          "--network.n_filters", "4", "--learner.n_tasks", "2", *ONE_ITERATION]  # fmt: skip
WILD = ["--learner.step_size", "1e30"]
LEARNERS = ("maml", "fomaml", "anil", "meta-sgd", "maml++", "pretrain")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twelve classes of four texts each."""
    rows = [{"text": f"{chr(97 + c) * (3 + i)} {i}", "label": c} for c in range(12) for i in range(4)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    shape = {"n_layers": 1, "d_model": 8, "n_heads": 2, "n_ctx": 48}
    tokenizer = Bytes()
    save(tmp_path / "run", GPT(GPTConfig(n_vocab=tokenizer.n_vocab, **shape)), step=1)
    tokenizer.save(tmp_path / "run" / "tokenizer.json")
    return tmp_path / "run"


DIVERGING = {
    **{f"classes, {name}": ["omniglot", *IMAGES, *WILD, "--learner.name", name, "--test.steps", "[0,20]"]
       for name in LEARNERS},
    "classes, reptile": ["omniglot", *IMAGES, "--learner.name", "reptile", "--learner.step_size", "1e38",
                         "--learner.n_query", "2", "--learner.batch", "3", "--test.steps", "[0,20]"],
    "classes, each query alone": ["omniglot", *IMAGES, *WILD, "--learner.name", "pretrain", "--test.transductive",
                                  "false", "--test.steps", "[0,20]"],
    "classes, watched": ["omniglot", *IMAGES, *WILD, "--learner.name", "pretrain", "--data.validation", "0.3",
                         "--test.steps", "[20]"],
    "sinusoids": ["sinusoid", *ONE_ITERATION, *WILD, "--learner.name", "pretrain", "--test_tasks", "3"],
    "functions": ["regression", *ONE_ITERATION, *WILD, "--learner.name", "pretrain", "--learner_outer.n_iterations",
                  "1", "--test_tasks", "3", "--reader", "null"],
}  # fmt: skip


@pytest.mark.parametrize("words", DIVERGING.values(), ids=DIVERGING)
def test_a_learner_whose_predictions_are_no_numbers_has_no_figure(words, texts, tmp_path, capsys):
    data = ["--data.path", str(texts)] if words[0] == "omniglot" else []
    assert main(["meta", *words, *data, "--out", str(tmp_path / "out")]) == 2
    error = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("fewshot: "))
    assert "is not a finite number" in error
    assert "learner.step_size" in error
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_learner_of_text_whose_predictions_are_no_numbers_has_no_figure(checkpoint, tmp_path, capsys):
    few = ["--tasks", "[hidden_letter]", "--shots", "[2]", "--seeds", "2", "--test_tasks", "2", "--finetune.tasks", "1",
           "--learner.n_tasks", "2", "--learner.n_query", "1", "--learner.n_support", "2", *ONE_ITERATION,
           "--run", str(checkpoint), "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(["meta", "text", *few, "--learner.name", "pretrain", *WILD]) == 2
    assert "learner.step_size" in capsys.readouterr().err
    too_large = ["--finetune.sgd", "[1e30]", "--finetune.adam", "[1e38]", "--finetune.steps", "[5]"]
    few[-1] = str(tmp_path / "other")
    assert main(["meta", "text", *few, *too_large]) == 2
    assert "finetune.sgd" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["sinusoid", "--learner.step_size", ".inf"], ["sinusoid", "--learner.step_size", "inf"],
     ["sinusoid", "--learner.step_size", ".nan"], ["sinusoid", "--outer.lr", ".inf"],
     ["sinusoid", "--outer.lr", "nan"], ["sinusoid", "--outer.clip_norm", ".inf"],
     ["sinusoid", "--outer.weight_decay", ".nan"], ["sinusoid", "--learner.multi_step_share", ".nan"],
     ["regression", "--noise", ".inf"], ["regression", "--learner_outer.lr", ".inf"],
     ["text", "--reader_lr", ".inf"], ["text", "--finetune.sgd", "[.inf]"], ["text", "--finetune.adam", "[.nan]"],
     ["omniglot", "--data.test", ".nan"], ["omniglot", "--data.validation", ".inf"]],
    ids=" ".join,
)  # fmt: skip
def test_a_setting_that_is_not_finite_is_refused_with_its_value(words, tmp_path, capsys):
    assert main(["meta", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    name = words[1].removeprefix("--").rpartition(".")[2]
    assert name in error
    assert "inf" in error or "nan" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sinusoid", SMALL),
        ("markov", {"outer": SMALL["outer"], "length": 5, "reader": {"d_model": 8}, "test_chains": 9}),
    ],
)
def test_several_seeds_are_the_single_ones_and_intervals_are_over_them(kind, settings, tmp_path):
    def measured(folder: str, **more: object) -> Measured:
        experiment = prepare(kind, configure(kind, lay_over(settings, more)))
        (tmp_path / folder).mkdir()
        list(train(experiment, tmp_path / folder, about={}))
        return measure(experiment, tmp_path / folder, about={})

    both = measured("both", seeds=2)
    first, second = measured("first"), measured("second", outer={"seed": 1})
    ((loop, rows),) = first.history.items()
    assert list(both.history) == [f"{loop}_0", f"{loop}_1"]
    assert both.history[f"{loop}_0"] == rows
    losses = [[row["loss"] for row in history] for history in (both.history[f"{loop}_1"], second.history[loop], rows)]
    assert losses[0] == losses[1] != losses[2]  # other figures of the second are on its own watched tasks
    assert set(both.history) == {path.stem for path in (tmp_path / "both").glob("*.safetensors")}
    for curve, alone in zip(both.curves, first.curves, strict=True):
        assert curve.training_flops == alone.training_flops
        assert [(point.n_examples, point.n_steps, point.flops) for point in curve.points] == [
            (point.n_examples, point.n_steps, point.flops) for point in alone.points
        ]
        assert all(point.n == 2 for point in curve.points)
        assert all(
            point.low <= single.mean <= point.high for point, single in zip(curve.points, alone.points, strict=True)
        )
    assert both.curves[0].training_flops > 0
    assert both.curves[0].n_weights > 0


def test_a_state_from_before_seeds_and_other_null_settings_goes_on(tmp_path):
    config = configure("regression", {"outer": SMALL["outer"], "learner": {"algorithm": "context"}, "test_tasks": 5})
    plain = to_plain(config)
    new = {"seeds": 1, "sizes": None, "n_known": None, "test_within": None}
    assert {name: plain[name] for name in new} == new
    old = {name: value for name, value in plain.items() if name not in new}
    old["reader"] = {name: value for name, value in plain["reader"].items() if name != "pattern"}
    loop = prepare("regression", config).loops["context"]
    loop.save(tmp_path / "state", about=about_training(old, {}))
    loop.load(tmp_path / "state", about=about_training(plain, {}))
    with pytest.raises(BadValue, match="seeds is 1 there, 2 here"):
        loop.load(tmp_path / "state", about=about_training({**plain, "seeds": 2}, {}))


def test_a_state_of_markov_from_before_its_learner_in_weights_goes_on(tmp_path):
    given = {"outer": SMALL["outer"], "length": 9, "learner": {"n_support": 7}}
    plain = to_plain(configure("markov", given))
    old = {name: value for name, value in plain.items() if name not in ("learner", "learner_outer", "widths")}
    loop = prepare("markov", configure("markov", given)).loops["context"]
    loop.save(tmp_path / "state", about=about_training(old, {}))
    loop.load(tmp_path / "state", about=about_training(plain, {}))
    other = to_plain(configure("markov", lay_over(given, {"learner": {"name": "maml"}})))
    with pytest.raises(BadValue, match=r"learner\.algorithm is context there, maml here"):
        loop.load(tmp_path / "state", about=about_training(other, {}))


def test_a_kind_without_learners_refuses_one(capsys):
    assert main(["meta", "rare", "--learner", "maml"]) == 2
    assert "rare has no learner to choose" in capsys.readouterr().err
