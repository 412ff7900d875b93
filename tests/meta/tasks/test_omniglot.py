from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from fewshot.cli.main import main
from fewshot.meta.episodes import Episodes
from fewshot.meta.experiment import configure
from fewshot.meta.tasks.omniglot import nearest_accuracy, one_by_one

SMALL = [
    "--n_ways", "3", "--data.side", "8", "--data.validation", "0.25", "--data.test", "0.25", "--network.n_filters", "4",
    "--network.n_blocks", "2", "--learner.n_tasks", "4", "--outer.n_iterations", "6", "--outer.report_every", "3",
    "--test.n_tasks", "10",
]  # fmt: skip


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """Twelve classes of four lines each."""
    for c in range(12):
        folder = tmp_path / "drawings" / f"alphabet{c % 2}" / f"character{c}"
        folder.mkdir(parents=True)
        for i in range(4):
            image = Image.new("1", (16, 16), 1)
            ImageDraw.Draw(image).line((c, i, 15 - c, 12 + i), 0, 2)
            image.save(folder / f"{i}.png")
    return tmp_path / "drawings"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twelve classes of four texts each."""
    lines = [{"text": f"{chr(97 + c) * (3 + i)} {i}", "label": c} for c in range(12) for i in range(4)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["meta", "omniglot", "--data.path", str(data), *SMALL, "--out", str(out), "--json", *more]


def measured(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(words) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("learner", ["maml", "fomaml", "anil", "meta-sgd", "maml++", "reptile", "pretrain"])
def test_the_command_trains_every_learner_on_a_folder_of_images(learner, drawings, tmp_path, capsys):
    result = measured(command(drawings, tmp_path / "out", "--learner", learner, "--learner.n_query", "2"), capsys)
    curve, nearest = result["curves"]
    assert [(p["n_examples"], p["n_steps"], p["n"]) for p in curve["points"]] == [(3, 0, 10), (3, 1, 10), (3, 3, 10)]
    assert all(0 <= p["mean"] <= 1 for p in curve["points"])
    assert (curve["kind"], nearest["kind"]) == ("weights", "baseline")
    assert result["more_is_better"]
    assert [row["iteration"] for row in result["history"][learner]] == [3, 6]
    assert all(0 <= row["validation accuracy"] <= 1 for row in result["history"][learner])


def test_texts_are_learned_and_each_query_can_be_asked_alone(texts, tmp_path, capsys):
    more = ["--data.n_bytes", "9", "--outer.n_iterations", "150", "--outer.lr", "1e-2", "--learner.n_query", "2"]
    together = measured(command(texts, tmp_path / "together", *more), capsys)
    alone = measured(command(texts, tmp_path / "alone", *more, "--test.transductive", "false"), capsys)
    for result in (together, alone):
        assert result["curves"][0]["points"][1]["mean"] > 0.6  # chance 0.33
        assert result["curves"][1]["points"][0]["mean"] > 0.9  # the letter says the class
    assert together["curves"][0] != alone["curves"][0]


def test_one_by_one_puts_each_query_behind_the_support_examples():
    support, query = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    apart = one_by_one(Episodes(support, torch.zeros(2, 3), query, torch.ones(2, 5)))
    assert apart.query_x.shape == (2, 5, 4, 4)
    assert torch.equal(apart.query_x[1, 2], torch.cat([support[1], query[1, 2:3]]))
    assert torch.equal(apart.support_x, support)


def test_the_nearest_example_is_found_by_pixels_and_by_byte_counts():
    support = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    query = torch.tensor([[[0.1, 0.2], [0.9, 0.4], [0.2, 0.2], [1.0, 1.0]]])
    y = torch.tensor([[1, 0, 0, 0]])
    given = Episodes(support, torch.tensor([[1, 0]]), query, y)
    assert nearest_accuracy(given).tolist() == [0.75]
    support, query = torch.tensor([[[1, 2, 3], [4, 4, 5]]]), torch.tensor([[[3, 2, 1], [5, 4, 9]]])
    y = torch.tensor([[0, 1]])
    ids = Episodes(support, y, query, y)
    assert nearest_accuracy(ids).tolist() == [1.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data.path"),
        (["--data.path", "nowhere"], "nowhere does not exist"),
        (["--n_ways", "4"], "the validation part has 3 of the 12 classes"),
        (["--learner.n_support", "4"], "4 + 1, but"),
        (["--test.n_query", "9"], "1 + 9, but"),
        (["--learner.name", "context"], "give another learner"),
        (["--data.test", "0"], "data.test is 0"),
        (["--data.validation", "0.8"], "must be below 1"),
        (["--data.validation", "-1"], "must be from 0"),
        (["--test.n_tasks", "1"], "test.n_tasks is 1"),
        (["--test.n_query", "0"], "test.n_query is 0"),
        (["--test.steps", "[]"], "test.steps"),
        (["--test.steps", "[-1]"], "test.steps is [-1]"),
        (["--threads", "0"], "threads is 0"),
        (["--network.pool", "max", "--network.n_blocks", "4"], "data.side is 8"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(words, message, drawings, tmp_path, capsys):
    given = command(drawings, tmp_path / "out", *words)
    if message == "data.path":
        given[2:4] = []
    assert main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_validation_classes_nothing_is_watched(drawings, tmp_path, capsys):
    result = measured(command(drawings, tmp_path / "out", "--data.validation", "0"), capsys)
    assert set(result["history"]["maml"][0]) == {"iteration", "loss"}


def test_a_learner_keeps_the_tasks_of_omniglot_and_a_given_option_goes_over_its_own():
    given = {"data": {"path": "x"}, "learner": {"name": "reptile", "n_support": 7}}
    reptile, plain = configure("omniglot", given).learner, configure("omniglot", {"data": {"path": "x"}}).learner
    assert (reptile.algorithm, reptile.step_size, reptile.n_support, reptile.n_tasks) == ("reptile", 1e-3, 7, 32)
    assert (plain.name, plain.step_size, plain.n_support) == ("maml", 0.4, 1)
